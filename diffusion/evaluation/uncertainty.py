"""Uncertainty of a value: intervals of distances, their floor between real clips, and means over seeds.

For distances, halves of both sets are drawn without replacement, because a bootstrap repeats samples, which shrinks
covariances.  Clips of one video are not independent, so the videos are halved: each clip has the number of its video as
its group, and the clips of a group stay together.

* The difference between a statistic of half of the samples and that of all samples is as large as the difference
  between the latter and the true value (delete-half jackknife; Shao and Wu, 1989), so the standard deviation over
  halves gives the interval.
* The bias of a Frechet distance is proportional to 1/N for large N (arXiv 1911.07023), so halves have twice the bias,
  and  2 d(N) - mean d(N/2)  has none to first order.  `diffusion.evaluation.infinite` describes the limits of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from temporal_zoo._support.statistics import half_width_95

SPLITS = 20
LEAST_GROUPS = 4  # on each side for an interval; in the pool for a floor
_NORMAL_95 = 1.96
_DIGITS = 6  # after the decimal point, at most; smaller numbers are written as 1.2e-09

# The distance between a subset of the real clips and a subset of the fake clips, given as indices.
Distance = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Estimate:
    """A number and the half-width of its 95 % interval; None if there are too few samples for an interval."""

    value: float
    margin: float | None = None

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below zero; False without an interval."""
        return self.margin is not None and self.value + self.margin < 0

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above zero; False without an interval."""
        return self.margin is not None and self.value - self.margin > 0

    def __str__(self) -> str:
        """The half-width with two significant digits (an integer from 10 on), and the value with as many decimals."""
        if self.margin is None:
            return f"{self.value:.4g}"
        if not (math.isfinite(self.margin) and self.margin > 0):
            return f"{self.value:.4g} ± {self.margin:.2g}"
        power = int(f"{self.margin:.1e}".partition("e")[2])
        digits = max(0, 1 - power)
        if digits > _DIGITS:
            return f"{self.value:.2g} ± {self.margin:.2g}"
        return f"{self.value:.{digits}f} ± {self.margin:.{digits}f}"


@dataclass(frozen=True)
class Resampled:
    """The distance of all samples, and the distances of random halves; no halves if a side has too few groups."""

    value: float
    halves: tuple[float, ...] = ()

    @property
    def margin(self) -> float | None:
        """Half-width of the 95 % interval."""
        return _NORMAL_95 * float(np.std(self.halves, ddof=1)) if self.halves else None

    @property
    def estimate(self) -> Estimate:
        """The distance at this number of samples."""
        return Estimate(self.value, self.margin)

    @property
    def first_order(self) -> float:
        """The distance without the part of its bias that is proportional to 1/N."""
        return 2 * self.value - float(np.mean(self.halves))


def resampled(
    distance: Distance, real_groups: np.ndarray, fake_groups: np.ndarray, rng: np.random.Generator
) -> Resampled:
    """Computes the distance of all samples, and of `2 SPLITS` pairs of halves.

    Args:
        real_groups, fake_groups: an integer for each sample; the samples of a group have equal integers.
    """
    sides = (real_groups, fake_groups)
    value = distance(*(np.arange(len(groups)) for groups in sides))
    if any(len(np.unique(groups)) < LEAST_GROUPS for groups in sides):
        return Resampled(value)
    halves: list[float] = []
    for _ in range(SPLITS):
        real, fake = (split_in_two(groups, rng) for groups in sides)
        halves += [distance(r, f) for r, f in zip(real, fake, strict=True)]
    return Resampled(value, tuple(halves))


def split_in_two(groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the samples in two random halves of the groups."""
    first, _ = np.array_split(rng.permutation(np.unique(groups)), 2)
    inside = np.isin(groups, first)
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def shuffled(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The indices of all samples in a random order in which the samples of a group are adjacent."""
    unique, inverse = np.unique(groups, return_inverse=True)
    rank = np.argsort(rng.permutation(len(unique)))
    return np.argsort(rank[inverse], kind="stable")


def floor(
    distance: Distance, num_real: int, num_fake: int, groups: np.ndarray, rng: np.random.Generator
) -> Estimate | None:
    """The distance if both sides are real: its mean over random splits of one pool, and the range of 95 % of them.

    All samples of a group are on one side, so the numbers of clips may differ from `num_real` and `num_fake` by a part
    of a group.

    Args:
        distance: takes the indices of about `num_real` and of `num_fake` clips of a pool of real clips.
        groups: of the pool.

    Returns:
        The estimate, or None if there are too few groups.
    """
    if len(np.unique(groups)) < LEAST_GROUPS:
        return None
    values = []
    for _ in range(SPLITS):
        order = shuffled(groups, rng)
        cut = nearest_cut(groups[order], num_real)
        values.append(distance(order[:cut], order[cut:]))
    return Estimate(float(np.mean(values)), _NORMAL_95 * float(np.std(values, ddof=1)))


def nearest_cut(ordered: np.ndarray, count: int) -> int:
    """The index that splits samples, sorted by group, into about `count` and the rest without dividing a group."""
    ends = np.flatnonzero(np.diff(ordered)) + 1
    return int(ends[np.abs(ends - count).argmin()])


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of the values of independent seeds, with Student's interval; no interval for a single seed."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean)
    return Estimate(mean, half_width_95(values))
