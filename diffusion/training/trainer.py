"""The training loop: `Trainer(config).steps()` yields one small record per optimizer step; the caller shows and saves.

Whatever a step draws is a function of (seed, global clip number), so its state is the weights, their average, the
optimizer and the step count: four steps equal two, a resume and two more, bit for bit on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusion.clip import Clip, ClipBatch
from diffusion.config import ProcessConfig, TrainConfig
from diffusion.data import open_clips
from diffusion.data.clips import ClipSource
from diffusion.model.backbone import Backbone
from diffusion.model.mixer_text import explicit
from diffusion.process.process import Process, draw_levels, draw_noise
from diffusion.training import checkpoint
from diffusion.training.step import DTYPES, Drawn, TrainingStep
from temporal_zoo.errors import UserError


class TrainingFailed(UserError, RuntimeError):
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
    """The configuration with what only the data and this version know: the shape of clips, and every mixer's options.

    So a checkpoint rebuilds its network without the data, and also when a default has changed.
    """
    model = config.model.replace(channels=clips.channels, size=clips.size, mixer=explicit(config.model.mixer))
    return config.replace(model=model)


class Trainer:
    """A network in training, and everything that a checkpoint must hold of it.

    Args:
        config: the run; `Trainer.config` is the same with the shape of the data filled in.
        device: where to train.
        state: what `Trainer.state` returned in an earlier run of this configuration, to continue it.
        path: the file that holds `state`, for messages.
    Raises:
        DataError: no clips can be had as asked.
        CheckpointError: `config.start` is none, or one of another network; or `state` does not fit.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        state: dict[str, Any] | None = None,
        path: Path = Path(checkpoint.NAME),
    ) -> None:
        start = checkpoint.find(config.start) if config.start is not None and state is None else None
        self.device = device
        self.clips = open_clips(config.data, split="train")
        self._held_out = open_clips(config.data, split="test") if config.data.test_share else None
        self.config = config = resolve(config, self.clips)
        self.process = Process.from_config(config.process)
        self.network = Backbone(config.model, seed=config.seed).to(device)
        self.training_step = TrainingStep(self.network, self.process, config.optimizer, dtype=DTYPES[config.precision])
        assert self.training_step.average is not None
        assert self.training_step.optimizer is not None
        self.average, self.optimizer = self.training_step.average, self.training_step.optimizer
        self.step = 0
        self._test: Drawn | None = None
        if state is not None:
            self.restore(state, path)
        elif start is not None:
            self._begin_from(start)

    def weights(self) -> dict[str, Any]:
        """What drawing clips needs, and a run that begins from this one: a checkpoint that cannot be continued."""
        return {key: value for key, value in self.state().items() if key not in ("network", "optimizer")}

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

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Continues from what `state` returned in a run of the same configuration, and `path` holds.

        Raises:
            CheckpointError: it is the state of another network.
        """
        self.step = state["step"]
        checkpoint.fill(self.network, state["network"], path, {})
        checkpoint.fill(self.average.model, state["average"], path, {})
        checkpoint.fill_optimizer(self.optimizer, state["optimizer"], path)
        if self.step and not self.optimizer.state:
            raise checkpoint.CheckpointError(f"{path} is damaged: the optimizer has no state after {self.step} steps")

    def _begin_from(self, path: Path) -> None:
        content = checkpoint.load(path, checkpoint.WEIGHTS)
        ours, theirs = (
            checkpoint.comparable(config)["model"] for config in (self.config, checkpoint.config_of(content, path))
        )
        reasons = checkpoint.differences(ours, theirs, "model.")
        for network in (self.network, self.average.model):
            checkpoint.fill(network, content["average"], path, reasons)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self.config.steps

    def steps(self) -> Iterator[Step]:
        """Trains from where it stands to `config.steps`.

        Raises:
            TrainingFailed: the loss or the gradient is not finite.
        """
        while not self.finished:
            yield self.advance()

    def advance(self) -> Step:
        """One optimizer step.

        Raises:
            TrainingFailed: the loss or the gradient is not finite; nothing was updated.
        """
        config, started = self.config, time.perf_counter()
        numbers = range(self.step * config.batch, (self.step + 1) * config.batch)
        clips = [self.clips.draw(number, config.seed) for number in numbers]
        lr = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        taken = self.training_step(self._drawn(clips, config.process, config.seed, "noise", numbers), self.step + 1)
        value, norm = taken.loss.item(), taken.gradient_norm.item()
        if not taken.finite:
            raise TrainingFailed(
                f"training failed at step {self.step + 1}: loss {value}, gradient norm {norm}; nothing "
                "was updated, and the last checkpoint is kept. What may help, in a folder of its own: a learning rate "
                f"below {lr:g} (--set optimizer.lr=...), bounded gradients (--set optimizer.clip=1), "
                "full precision (--set precision=fp32)"
            )
        self.step += 1
        return Step(
            step=self.step,
            clips_seen=self.step * config.batch,
            loss=value,
            lr=lr,
            gradient_norm=norm,
            seconds=time.perf_counter() - started,
        )

    def test_loss(self) -> float | None:
        """Loss of the averaged weights on fixed held-out clips; None where none are held out (`data.test_share=0`)."""
        if (test := self.held_out()) is None:
            return None
        batch = self.config.batch
        with torch.no_grad():
            parts = [
                self.training_step.losses(test.part(i, batch), self.average.model)
                for i in range(0, len(test.clean), batch)
            ]
        return torch.cat(parts).mean().item()

    def held_out(self) -> Drawn | None:
        """The `test_clips` fixed clips of `test_loss`; noise and noise levels are the same for every run and mixer, and
        the levels spread evenly.  None where no clips are held out.
        """
        if self._held_out is not None and self._test is None:
            count, process = self.config.test_clips, self.config.process.replace(draw="stratified")
            self._test = self._drawn(self._held_out.fixed(count), process, 0, "test noise", range(count))
        return self._test

    def _drawn(self, clips: list[Clip], process: ProcessConfig, seed: int, purpose: str, numbers: range) -> Drawn:
        """Clips with the noise and the noise levels that go with their numbers, on the device."""
        batch = ClipBatch.of(clips)
        shape = tuple(batch.values.shape[1:])
        levels = draw_levels(process, seed, numbers, shape[0])
        noise = draw_noise(seed, purpose, numbers, shape)
        batch = batch.to(self.device)
        return Drawn(batch.values, noise.to(self.device), levels.to(self.device), batch.lengths)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, a constant stretch, and a linear fall over the last `decay` of the steps."""
    o = config.optimizer
    rise = min(1.0, (step + 1) / o.warmup) if o.warmup else 1.0
    fall = min(1.0, (config.steps - step) / (o.decay * config.steps)) if o.decay else 1.0
    return o.lr * rise * fall
