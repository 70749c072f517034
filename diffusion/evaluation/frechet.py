"""The Frechet distance of two Gaussians fitted to features, in float64, and what its number of samples does to it.

    d2 = |m1 - m2|^2 + tr(S1 + S2) - 2 tr (S1^1/2 S2 S1^1/2)^1/2

Covariances are those of samples (N - 1).  With any F such that F F' = S, the last trace is the nuclear norm of F1' F2:
F is the centred features over sqrt(N - 1) where they are fewer than their width, else the square root of S by `eigh`.
No singular covariance is ever inverted or multiplied out, which is why a set lies at distance 0 from itself.

Letters: n samples, f features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from diffusion.evaluation import EvaluationError


@dataclass(frozen=True, eq=False)
class Statistics:
    """Count, mean and scatter of features; made of batches in any order, and merged (Chan et al., 1979).

    mean: (f,) float64.  scatter: (f, f) float64, the sum of outer products of what deviates from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """The statistics of (n, f) features, n at least 1."""
        features = np.asarray(features, np.float64)
        mean = features.mean(0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def merged(self, other: Statistics) -> Statistics:
        """The statistics of both sets of samples together."""
        count = self.count + other.count
        gap = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(gap, gap) * (self.count * other.count / count)
        return Statistics(count, self.mean + gap * (other.count / count), scatter)

    @cached_property
    def factor(self) -> np.ndarray:
        """(f, f): F with F F' = S."""
        values, vectors = np.linalg.eigh(self.scatter / (self.count - 1))
        return vectors * np.sqrt(values.clip(0))

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(np.trace(self.scatter)) / (self.count - 1)


@dataclass(frozen=True, eq=False)
class Samples:
    """A few features, kept as they are: what `Statistics` is for many.  features: (n, f) float64."""

    features: np.ndarray

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.features)

    @cached_property
    def mean(self) -> np.ndarray:
        """(f,) float64."""
        return self.features.mean(0)

    @cached_property
    def factor(self) -> np.ndarray:
        """(f, n): F with F F' = S."""
        return (self.features - self.mean).T / np.sqrt(self.count - 1)

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(np.square(self.factor).sum())


@dataclass(frozen=True)
class Frechet:
    """A distance and what it is made of: how far the means lie apart, and how different the covariances are."""

    mean_term: float
    covariance_term: float

    @property
    def value(self) -> float:
        """The squared distance, which is what FVD means."""
        return self.mean_term + self.covariance_term


def distance(first: Statistics | Samples, second: Statistics | Samples) -> Frechet:
    """The squared Frechet distance.  Raises: EvaluationError with fewer than 2 samples, or features of other widths."""
    for side in (first, second):
        if side.count < 2:
            raise EvaluationError(f"a covariance needs at least 2 clips on either side; there is {side.count}")
    if first.mean.shape != second.mean.shape:
        raise EvaluationError(f"features of {first.mean.size} and {second.mean.size} numbers are of different networks")
    nuclear = float(np.linalg.svd(first.factor.T @ second.factor, compute_uv=False).sum())
    gap = first.mean - second.mean
    return Frechet(float(gap @ gap), first.trace + second.trace - 2 * nuclear)


def summary(features: np.ndarray) -> Statistics | Samples:
    """What `distance` takes, of (n, f) features: the form that is cheaper for their number."""
    features = np.asarray(features, np.float64)
    return Samples(features) if len(features) < features.shape[1] else Statistics.of(features)


def frechet(first: np.ndarray, second: np.ndarray) -> Frechet:
    """The squared Frechet distance of (n, f) features."""
    return distance(summary(first), summary(second))
