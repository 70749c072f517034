"""The task of a probe: sequences, the values that it asks for, and the best possible answers.

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
from diffusion.randomness import generator


@dataclass(frozen=True)
class Knob:
    """A setting that makes a task harder: its name, its values from easy to hard, and the default."""

    name: str
    values: tuple[float, ...]
    default: float

    def checked(self, value: float) -> float:
        """Returns the value.  Raises: ProbeError when it is not one of `values`."""
        if value not in self.values:
            raise ProbeError(f"{self.name} cannot be {value:g}; choose from {', '.join(f'{v:g}' for v in self.values)}")
        return value


@dataclass(frozen=True)
class Sequences:
    """inputs: (b, t, i) float32.  targets: (b, t, o) float32.  due: (b, t) bool, the frames that need an answer."""

    inputs: Tensor
    targets: Tensor
    due: Tensor

    def errors(self, answers: Tensor, variance: float) -> Tensor:
        """Squared errors of answers (b, t, o), summed over outputs, divided by `variance`; 0 where not due.  (b, t)"""
        return (answers - self.targets).square().sum(-1) / variance * self.due


@dataclass(frozen=True)
class Best:
    """The best possible given the past and the present frame, and given the whole sequence."""

    past: Tensor
    whole: Tensor


@dataclass(frozen=True)
class Task(abc.ABC):
    """One probe at one difficulty and one level of noise.

    A file in `tasks/` holds one subclass, named `Probe`.  The score of an answer is its squared error where it is due,
    divided by `variance`, the error of the best guess without any input: 1 is chance.

    level: the value of `knob`.  noise: standard deviation of the Gaussian noise on the inputs.
    """

    question: ClassVar[str]
    knob: ClassVar[Knob]
    noises: ClassVar[Knob]
    # Enough training steps, in less than a minute on one core.
    steps: ClassVar[int] = 400
    frames: ClassVar[int] = 32
    # Lengths of the test sequences, where they differ from the training sequences.
    test_frames: ClassVar[tuple[int, ...]] = ()

    level: float
    noise: float

    def __post_init__(self) -> None:
        self.knob.checked(self.level)
        self.noises.checked(self.noise)

    @property
    def variance(self) -> float:
        """Squared error of the best guess without any input."""
        return 1.0

    @property
    def channels(self) -> tuple[str, ...]:
        """The name of each input, for figures; empty where a frame is an image itself."""
        return ()

    @final
    def draw(self, seed: int, purpose: str, first: int, count: int, frames: int) -> Sequences:
        """`count` sequences from number `first` on; sequence n is a function of (seed, purpose, n) only."""
        numbers = range(first, first + count)
        size = self.num_normals(frames)
        normals = torch.stack([torch.randn(size, generator=generator(seed, purpose, n)) for n in numbers])
        return self.make_sequences(normals.double(), frames)

    @abc.abstractmethod
    def num_normals(self, frames: int) -> int:
        """The number of normal numbers that one sequence needs."""

    @abc.abstractmethod
    def make_sequences(self, normals: Tensor, frames: int) -> Sequences:
        """Sequences from independent standard normal numbers, (b, num_normals) float64."""

    @abc.abstractmethod
    def answers(self, sequences: Sequences) -> Best:
        """The best possible answers, (b, t, o) float64 each: conditional means of the targets given the inputs."""

    def bounds(self, frames: int) -> tuple[float, float] | None:
        """Expected errors (past, whole) of those answers in closed form; None without one."""
        return None


def uniform(normals: Tensor) -> Tensor:
    """Uniform numbers in (0, 1) from standard normal ones."""
    return 0.5 * (1 + torch.erf(normals / math.sqrt(2)))
