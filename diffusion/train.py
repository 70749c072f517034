"""The training loop: `Trainer(config).steps()` yields one small record per optimizer step; the caller shows and saves.

Whatever a step draws is a function of (seed, global clip number), so its state is the weights, their average, the
optimizer and the step count: four steps equal two, a resume and two more, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion import checkpoint
from diffusion.backbone import Backbone
from diffusion.clip import ClipBatch
from diffusion.config import TrainConfig
from diffusion.data import open_clips
from diffusion.data.source import ClipSource
from diffusion.ema import MovingAverage
from diffusion.process import Process, draw_levels, draw_noise, loss


class TrainingFailed(RuntimeError):
    """The loss or the gradient is not a finite number; the message says at which step."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimizer step did; `loss` and `gradient_norm` are of this step's clips alone."""

    step: int
    clips_seen: int
    loss: float
    lr: float
    gradient_norm: float
    seconds: float


def resolve(config: TrainConfig, clips: ClipSource) -> TrainConfig:
    """The configuration with what only the data knows, so that a checkpoint rebuilds its network without them."""
    return config.replace(model=config.model.replace(channels=clips.channels, size=clips.size))


class Trainer:
    """A network in training, and everything that a checkpoint must hold of it.

    Args:
        config: the run; `Trainer.config` is the same with the shape of the data filled in.
        device: where to train.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.device = device
        self.clips = open_clips(config.data, split="train")
        self.config = config = resolve(config, self.clips)
        self.process = Process.from_config(config.process)
        self.network = Backbone(config.model, seed=config.seed).to(device, memory_format=torch.channels_last)
        self.average = MovingAverage(self.network, decay=config.optimizer.ema, warmup=config.optimizer.ema_warmup)
        self.optimizer = _optimizer(self.network, config)
        self.step = 0
        if config.start is not None:
            weights = checkpoint.load(checkpoint.find(config.start))["average"]
            self.network.load_state_dict(weights)
            self.average.model.load_state_dict(weights)
        self._test: tuple[Tensor, Tensor, Tensor, Tensor | None] | None = None

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, on the devices where it lives."""
        return {
            "config": self.config.to_dict(),
            "step": self.step,
            "fps": self.clips.fps,
            "network": self.network.state_dict(),
            "average": self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state()` of a run with the same configuration."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def steps(self) -> Iterator[Step]:
        """Trains from where it stands to `config.steps`.

        Raises:
            TrainingFailed: the loss or the gradient is not finite.
        """
        while self.step < self.config.steps:
            yield self._advance()

    def _advance(self) -> Step:
        config, started = self.config, time.perf_counter()
        numbers = range(self.step * config.batch, (self.step + 1) * config.batch)
        batch = ClipBatch.of([self.clips.draw(number, config.seed) for number in numbers])
        lr = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        value = self._loss(self.network, *self._on_device(batch, config.seed, "noise", numbers)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        limit = config.optimizer.clip
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), math.inf if limit is None else limit)
        if not math.isfinite(value.item()) or not math.isfinite(norm.item()):
            raise TrainingFailed(
                f"step {self.step + 1}: loss {value.item()}, gradient norm {norm.item()}; nothing was updated. "
                "A lower learning rate helps: --set optimizer.lr=..., or --set precision=fp32"
            )
        self.optimizer.step()
        self.step += 1
        self.average.update(self.network, self.step)
        return Step(
            step=self.step,
            clips_seen=self.step * config.batch,
            loss=value.item(),
            lr=lr,
            gradient_norm=norm.item(),
            seconds=time.perf_counter() - started,
        )

    def test_loss(self) -> float:
        """Loss of the averaged weights on fixed held-out clips, with noise and levels that every run and mixer shares."""
        if self._test is None:
            count = self.config.test_clips
            held_out = open_clips(self.config.data, split="test").fixed(count)
            self._test = self._on_device(ClipBatch.of(held_out), 0, "test noise", range(count), draw="stratified")
        losses = []
        with torch.no_grad():
            for part in range(0, self.config.test_clips, self.config.batch):
                rows = slice(part, part + self.config.batch)
                losses.append(self._loss(self.average.model, *(None if t is None else t[rows] for t in self._test)))
        return torch.cat(losses).mean().item()

    def _on_device(self, batch: ClipBatch, seed: int, purpose: str, numbers: range, draw: str | None = None):
        """Clean clips, noise, levels and lengths of some clip numbers, on the device."""
        process = self.config.process if draw is None else self.config.process.replace(draw=draw)
        shape = tuple(batch.values.shape[1:])
        levels = draw_levels(process, seed, numbers, shape[0])
        noise = draw_noise(seed, purpose, numbers, shape)
        batch = batch.to(self.device)
        return batch.values, noise.to(self.device), levels.to(self.device), batch.lengths

    def _loss(self, network, clean: Tensor, noise: Tensor, levels: Tensor, lengths: Tensor | None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return loss(network, self.process, clean, noise, levels, lengths)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, a constant stretch, and a linear fall over the last `decay` of the steps."""
    o = config.optimizer
    rise = min(1.0, (step + 1) / o.warmup) if o.warmup else 1.0
    fall = min(1.0, (config.steps - step) / (o.decay * config.steps)) if o.decay else 1.0
    return o.lr * rise * fall


def _optimizer(network: Backbone, config: TrainConfig) -> torch.optim.AdamW:
    spared = network.no_decay()
    named = list(network.named_parameters())
    groups = [
        {"params": [p for name, p in named if name not in spared], "weight_decay": config.optimizer.weight_decay},
        {"params": [p for name, p in named if name in spared], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.optimizer.lr, betas=(0.9, config.optimizer.beta2))
