"""The squared Frechet distance between two Gaussians that are fitted to features, in float64.

    d2 = |m1 - m2|^2 + tr(S1 + S2) - 2 tr (S1^1/2 S2 S1^1/2)^1/2

Covariances are sample covariances (N - 1).  For any F with F F' = S, the last trace is the nuclear norm of F1' F2.  If
there are fewer samples than features, F is the centred features divided by sqrt(N - 1); otherwise F is the square root
of S by `eigh`.  No singular covariance is inverted or multiplied, so the distance of a set from itself is 0.

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
    """Count, mean and scatter of features.  Statistics of batches can be merged in any order (Chan et al., 1979).

    mean: (f,) float64.
    scatter: (f, f) float64, the sum of outer products of the deviations from the mean.
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
class RawFeatures:
    """The features themselves, (n, f) float64: cheaper than `Statistics` for fewer samples than features."""

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
    """A distance and its two terms: from the difference of the means, and from the difference of the covariances."""

    mean_term: float
    covariance_term: float

    @property
    def value(self) -> float:
        """The squared distance; FVD is this value for the logits of I3D."""
        return self.mean_term + self.covariance_term


def distance(first: Statistics | RawFeatures, second: Statistics | RawFeatures) -> Frechet:
    """The squared Frechet distance.

    Raises:
        EvaluationError: there are fewer than 2 samples on a side, or the numbers of features differ.
    """
    for side in (first, second):
        if side.count < 2:
            raise EvaluationError(f"a covariance needs at least 2 clips on each side; one side has {side.count}")
    if first.mean.shape != second.mean.shape:
        raise EvaluationError(
            f"the numbers of features differ ({first.mean.size}, {second.mean.size}); use one network"
        )
    nuclear = float(np.linalg.svd(first.factor.T @ second.factor, compute_uv=False).sum())
    gap = first.mean - second.mean
    return Frechet(float(gap @ gap), first.trace + second.trace - 2 * nuclear)


def summary(features: np.ndarray) -> Statistics | RawFeatures:
    """Converts (n, f) features to an argument of `distance`: the form that is cheaper for n samples."""
    features = np.asarray(features, np.float64)
    return RawFeatures(features) if len(features) < features.shape[1] else Statistics.of(features)


def frechet(first: np.ndarray, second: np.ndarray) -> Frechet:
    """The squared Frechet distance between two sets of (n, f) features."""
    return distance(summary(first), summary(second))
