"""The training loop: `Trainer(config, device).steps()` yields one record per optimizer step.

All random choices of a step are functions of (seed, global clip number).  The state of training is therefore the
weights, their average, the optimizer and the number of steps: on a CPU, four steps equal two steps, a resumption and
two steps, bit for bit.
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
from diffusion.model.backbones import build_network
from diffusion.model.mixer_text import explicit
from diffusion.process.process import Process, draw_levels, draw_noise
from diffusion.training import checkpoint, resume
from diffusion.training.step import DTYPES, TrainingBatch, TrainingStep
from temporal_zoo.errors import UserError


class TrainingFailed(UserError, RuntimeError):
    """The loss or the gradient is not a finite number; the message says at which step."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """The log's record of one optimizer step; `loss` and `gradient_norm` are those of this step's clips."""

    step: int
    clips_seen: int
    loss: float
    lr: float
    gradient_norm: float
    seconds: float


def resolve(config: TrainConfig, clips: ClipSource) -> TrainConfig:
    """The configuration with the shape of the data's clips and all options of all mixers.

    A checkpoint then rebuilds its network without the data, also when a default has changed.
    """
    model = config.model.replace(channels=clips.channels, size=clips.size, mixer=explicit(config.model.mixer))
    return config.replace(model=model)


class Trainer:
    """A network in training, with its data, optimizer and moving average.

    Args:
        config: the run; `Trainer.config` is the resolved configuration (`resolve`).
        device: where to train.
        state: what `Trainer.state` returned in an earlier run of this configuration, to resume it.
        path: the file that holds `state`, for messages.
    Raises:
        DataError: the data has no clips of this configuration.
        CheckpointError: `config.start` is not a checkpoint, or one of another network; or `state` does not fit.
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
        self.network = build_network(config.model, seed=config.seed).to(device)
        self.training_step = TrainingStep(self.network, self.process, config.optimizer, dtype=DTYPES[config.precision])
        assert self.training_step.average is not None
        assert self.training_step.optimizer is not None
        self.average, self.optimizer = self.training_step.average, self.training_step.optimizer
        self.step = 0
        self._test: TrainingBatch | None = None
        if state is not None:
            self.restore(state, path)
        elif start is not None:
            self._begin_from(start)

    def weights(self) -> dict[str, Any]:
        """The part of `state` for sampling, and for runs that start from these weights; it cannot be resumed."""
        state = self.state()
        return {part: state[part] for part in checkpoint.WEIGHTS}

    def state(self) -> dict[str, Any]:
        """The state that `restore` reads, on the devices where it is."""
        return {
            "config": self.config.to_dict(),
            "step": self.step,
            "fps": self.clips.fps,
            "network": self.network.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Continues from what `state` returned in a run of the same configuration; `path` is its file.

        Raises:
            CheckpointError: it is the state of another network.
        """
        self.step = state["step"]
        checkpoint.fill(self.network, state["network"], path, {})
        checkpoint.fill(self.average.module, state["average"], path, {})
        self.average.set_updates(self.step)
        checkpoint.fill_optimizer(self.optimizer, state["optimizer"], path)
        if self.step and not self.optimizer.state:
            raise checkpoint.CheckpointError(f"{path} is damaged: the optimizer has no state after {self.step} steps")

    def _begin_from(self, path: Path) -> None:
        content = checkpoint.load(path, checkpoint.WEIGHTS)
        ours, theirs = (
            resume.comparable(config)["model"] for config in (self.config, checkpoint.config_of(content, path))
        )
        reasons = resume.differences(ours, theirs, "model.")
        for network in (self.network, self.average.module):
            checkpoint.fill(network, content["average"], path, reasons)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.config.steps

    def steps(self) -> Iterator[StepRecord]:
        """Trains from the present step to `config.steps`.

        Raises:
            TrainingFailed: the loss or the gradient is not finite.
        """
        while not self.finished:
            yield self.advance()

    def advance(self) -> StepRecord:
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
        result = self.training_step(self._batch(clips, config.process, config.seed, "noise", numbers))
        value, norm = result.loss.item(), result.gradient_norm.item()
        if not result.finite:
            raise TrainingFailed(
                f"training failed at step {self.step + 1}: loss {value}, gradient norm {norm}; the step updated "
                "nothing, and the last checkpoint is unchanged. Try, in another folder, a learning rate "
                f"below {lr:g} (--set optimizer.lr=...), clipped gradients (--set optimizer.clip=1), "
                "or full precision (--set precision=fp32)"
            )
        self.step += 1
        return StepRecord(
            step=self.step,
            clips_seen=self.step * config.batch,
            loss=value,
            lr=lr,
            gradient_norm=norm,
            seconds=time.perf_counter() - started,
        )

    def test_loss(self) -> float | None:
        """Loss of the averaged weights on fixed held-out clips; None if there are none (`data.test_share=0`)."""
        if (test := self.held_out()) is None:
            return None
        batch = self.config.batch
        with torch.no_grad():
            parts = [
                self.training_step.losses(test.part(i, batch), self.average.module)
                for i in range(0, len(test.clean), batch)
            ]
        return torch.cat(parts).mean().item()

    def held_out(self) -> TrainingBatch | None:
        """The `test_clips` fixed clips of `test_loss`; None if no clips are held out.

        Noise and noise levels are the same for every run and mixer, and the noise levels are evenly spread.
        """
        if self._held_out is not None and self._test is None:
            count, process = self.config.test_clips, self.config.process.replace(draw="stratified")
            self._test = self._batch(self._held_out.fixed(count), process, 0, "test noise", range(count))
        return self._test

    def _batch(
        self, clips: list[Clip], process: ProcessConfig, seed: int, purpose: str, numbers: range
    ) -> TrainingBatch:
        """Clips with the noise and the noise levels of their numbers, on the device."""
        batch = ClipBatch.of(clips)
        shape = tuple(batch.values.shape[1:])
        levels = draw_levels(process, seed, numbers, shape[0])
        noise = draw_noise(seed, purpose, numbers, shape)
        batch = batch.to(self.device)
        return TrainingBatch(batch.values, noise.to(self.device), levels.to(self.device), batch.lengths)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, then linear decay to zero over the last fraction `decay` of the steps."""
    o = config.optimizer
    rise = min(1.0, (step + 1) / o.warmup) if o.warmup else 1.0
    fall = min(1.0, (config.steps - step) / (o.decay * config.steps)) if o.decay else 1.0
    return o.lr * rise * fall
