"""Trains one mixer on one probe with one seed, and compares it with the best possible answers.

The result is a function of the `ProbeTrial` only.  Test sequences depend on the seed and not on the mixer: all mixers
of a seed have the same ones, and the intervals over seeds include the randomness of the test and of the training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.probes.network import Answerer
from diffusion.probes.task import Sequences, Task
from diffusion.probes.tasks import get
from temporal_zoo import MixerSpec

_LR, _WARMUP, _CLIP = 3e-3, 20, 1.0
_WIDTH, _DEPTH = 32, 2
_BATCH = 64
# Frames per forward pass of a test; bounds the memory of long sequences.
_TEST_FRAMES = 8192
_CURVE_POINTS = 10
_CURVE_SEQUENCES = 512


@dataclass(frozen=True)
class ProbeTrial:
    """Probe, difficulty (`level`), noise, mixer (its spec), seed, training steps, and number of test sequences."""

    probe: str
    level: float
    noise: float
    mixer: str
    seed: int
    steps: int
    sequences: int

    def task(self) -> Task:
        """The probe at this level and noise."""
        return get(self.probe)(self.level, self.noise)


@dataclass(frozen=True)
class TrialProgress:
    """The number of finished steps and, after the last one, the result as plain values."""

    step: int
    result: dict[str, Any] | None = None


def run(trial: ProbeTrial) -> Iterator[TrialProgress]:
    """Trains and tests; yields after every step."""
    task, began = trial.task(), time.process_time()
    sample = task.draw(trial.seed, "probe/test", 0, min(trial.sequences, _CURVE_SEQUENCES), task.frames)
    sizes = sample.inputs.shape[-1], sample.targets.shape[-1]
    network = Answerer(MixerSpec.parse(trial.mixer), *sizes, width=_WIDTH, depth=_DEPTH, seed=trial.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=_LR, betas=(0.9, 0.95))
    curve = []
    for step in range(1, trial.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = _LR * min(1, step / _WARMUP) * 0.5 * (1 + math.cos(math.pi * (step - 1) / trial.steps))
        batch = task.draw(trial.seed, "probe/train", (step - 1) * _BATCH, _BATCH, task.frames)
        optimizer.zero_grad()
        (batch.errors(network(batch.inputs), task.variance).sum() / batch.due.sum()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimizer.step()
        if step % max(1, trial.steps // _CURVE_POINTS) == 0:
            error = sample.errors(_predict(network, sample.inputs), task.variance).sum() / sample.due.sum()
            curve.append([step, error.item()])
        if step < trial.steps:
            yield TrialProgress(step)
    mixer = network.mixers[0]
    result = {
        "causal": mixer.causal,
        "order_blind": mixer.order_blind,
        "parameters": sum(p.numel() for p in network.parameters()),
        "curve": curve,
        "tests": [_test(network, task, trial, frames) for frames in task.test_frames or (task.frames,)],
        "example": _round(_predict(network, sample.inputs[:1])[0]),
        "processor_s": time.process_time() - began,
    }
    yield TrialProgress(trial.steps, result)


def _test(network: Answerer, task: Task, trial: ProbeTrial, frames: int) -> dict[str, Any]:
    """Errors of the network and of the best answers on the same sequences, with equally many frames for any length."""
    count = max(2, trial.sequences * task.frames // max(frames, task.frames))
    test = task.draw(trial.seed, "probe/test", 0, count, frames)
    best = task.answers(test)
    errors = {
        name: test.errors(answers, task.variance).double()
        for name, answers in (
            ("mixer", _predict(network, test.inputs)), ("past", best.past), ("whole", best.whole),
        )
    }  # fmt: skip
    due = test.due.sum(0)
    return {
        "frames": frames,
        "sequences": count,
        "errors": {name: _estimate(error, test) for name, error in errors.items()},
        # Differences from the best answers on the same sequences, in which the randomness of the sequences cancels.
        "gaps": {name: _estimate(errors["mixer"] - errors[name], test) for name in ("past", "whole")},
        "by_frame": {name: _round(error.sum(0) / due.clamp(min=1)) for name, error in errors.items()}
        | {"due": due.tolist()},
    }


def _estimate(errors: Tensor, test: Sequences) -> list[float]:
    """Mean over all frames with an answer due, and its standard error over sequences."""
    each = errors.sum(1) / test.due.sum(1).double().mean()
    return [each.mean().item(), (each.std() / math.sqrt(len(each))).item()]


@torch.no_grad()
def _predict(network: Answerer, inputs: Tensor) -> Tensor:
    rows = max(1, _TEST_FRAMES // inputs.shape[1])
    return torch.cat([network(part) for part in inputs.split(rows)])


def _round(values: Tensor) -> Any:
    return torch.round(values.double(), decimals=5).tolist()
