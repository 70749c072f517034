"""What a probe is: sequences, what is asked of them, and the best possible answers.

Letters: b sequences, t frames, i inputs, o outputs.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from diffusion.probes import ProbeError
from diffusion.process.randomness import generator


@dataclass(frozen=True)
class Knob:
    """What can be made harder: its name, the values that it takes, from easy to hard, and the usual one of them."""

    name: str
    values: tuple[float, ...]
    usual: float

    def checked(self, value: float) -> float:
        """The value.  Raises: ProbeError when the knob does not take it."""
        if value not in self.values:
            raise ProbeError(f"{self.name} cannot be {value:g}; it takes {', '.join(f'{v:g}' for v in self.values)}")
        return value


@dataclass(frozen=True)
class Sequences:
    """inputs: (b, t, i) float32, what a network sees.  targets: (b, t, o) float32.  due: (b, t), where it is asked."""

    inputs: Tensor
    targets: Tensor
    due: Tensor

    def errors(self, answers: Tensor, variance: float) -> Tensor:
        """Squared errors of answers (b, t, o), summed over outputs, in units of `variance`; 0 where not due.  (b, t)"""
        return (answers - self.targets).square().sum(-1) / variance * self.due


@dataclass(frozen=True)
class Best:
    """The best there is for whoever sees the past (and the present) alone, and for whoever sees the whole sequence."""

    past: Tensor
    whole: Tensor


@dataclass(frozen=True)
class Task(abc.ABC):
    """One probe at one difficulty and one level of noise.

    A file in `tasks/` holds one subclass, named `Probe`.  Answers are scored by their squared error where they are due,
    in units of `variance`, the error of the best guess of whoever sees nothing: 1 is chance.

    level: the value of `knob`.  noise: standard deviation of the Gaussian noise on what is shown.
    """

    question: ClassVar[str]
    knob: ClassVar[Knob]
    noises: ClassVar[Knob]
    # Training steps that suffice, in less than a minute on one core.
    steps: ClassVar[int] = 400
    frames: ClassVar[int] = 32
    # Frames of the sequences that are tested, if other than those of training.
    test_frames: ClassVar[tuple[int, ...]] = ()

    level: float
    noise: float

    def __post_init__(self) -> None:
        self.knob.checked(self.level)
        self.noises.checked(self.noise)

    @property
    def variance(self) -> float:
        """Squared error of the best guess of whoever sees nothing."""
        return 1.0

    @property
    def channels(self) -> tuple[str, ...]:
        """What each of the inputs is, for pictures; empty where a frame is a picture itself."""
        return ()

    @final
    def draw(self, seed: int, purpose: str, first: int, count: int, frames: int) -> Sequences:
        """`count` sequences from number `first` on; number n is a function of (seed, purpose, n) and nothing else."""
        numbers = range(first, first + count)
        size = self.num_normals(frames)
        normals = torch.stack([torch.randn(size, generator=generator(seed, purpose, n)) for n in numbers])
        return self.made(normals.double(), frames)

    @abc.abstractmethod
    def num_normals(self, frames: int) -> int:
        """How many normal numbers one sequence is made of."""

    @abc.abstractmethod
    def made(self, normals: Tensor, frames: int) -> Sequences:
        """Sequences from independent standard normal numbers, (b, num_normals) float64."""

    @abc.abstractmethod
    def answers(self, sequences: Sequences) -> Best:
        """The best possible answers, (b, t, o) float64 each: means of the targets, given what is shown."""

    def bounds(self, frames: int) -> tuple[float, float] | None:
        """Expected error of those answers in closed form, (past, whole), or None when only `answers` tells."""
        return None


def uniform(normals: Tensor) -> Tensor:
    """Uniform numbers in (0, 1) from standard normal ones."""
    return 0.5 * (1 + torch.erf(normals / math.sqrt(2)))
