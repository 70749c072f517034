"""How far a number can be trusted: a distance of samples, its floor between real clips, and a mean over seeds.

For distances, halves of both sets are drawn without replacement: a bootstrap would repeat samples, which shrinks
covariances.  Clips of one video are not independent, so halves are halves of the videos: each clip carries the number
of its video, its group, and the clips of a group stay together.

* A statistic of half of the samples deviates from that of all of them as much as that one does from the truth
  (delete-half jackknife; Shao and Wu, 1989), so the spread over halves gives the interval.
* The bias of a Frechet distance falls as 1/N where N is large (arXiv 1911.07023), so halves have twice of it, and
  2 d(N) - mean d(N/2)  is without it to first order.  `diffusion.evaluation.infinite` says what that is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from temporal_zoo._support.statistics import half_width_95

SPLITS = 20
LEAST_GROUPS = 4  # on each side for an interval, in a pool for a floor
_NORMAL_95 = 1.96
_DIGITS = 6  # after the point, at most; smaller numbers are written as 1.2e-09

# Distance of a subset of the real clips to a subset of the fake ones, given by their numbers.
Distance = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Estimate:
    """A number and the half-width of its 95 % interval; None where there were too few samples to tell."""

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
        """The half-width with two digits, no digits after the point when it is 10 or more, and the value likewise."""
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
    """A distance of all samples, and those of random halves; no halves where a side has too few groups."""

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
        """The distance without the part of its bias that is a multiple of 1/N."""
        return 2 * self.value - float(np.mean(self.halves))


def resampled(
    distance: Distance, real_groups: np.ndarray, fake_groups: np.ndarray, dice: np.random.Generator
) -> Resampled:
    """The distance of all samples, and of `2 SPLITS` pairs of halves.

    real_groups, fake_groups: for each sample an integer, equal for samples that belong together.
    """
    sides = (real_groups, fake_groups)
    value = distance(*(np.arange(len(groups)) for groups in sides))
    if any(len(np.unique(groups)) < LEAST_GROUPS for groups in sides):
        return Resampled(value)
    halves: list[float] = []
    for _ in range(SPLITS):
        real, fake = (split_in_two(groups, dice) for groups in sides)
        halves += [distance(r, f) for r, f in zip(real, fake, strict=True)]
    return Resampled(value, tuple(halves))


def split_in_two(groups: np.ndarray, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the samples in two random halves of the groups."""
    first, _ = np.array_split(dice.permutation(np.unique(groups)), 2)
    inside = np.isin(groups, first)
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def shuffled(groups: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """All samples in a random order in which the samples of a group stand together."""
    unique, inverse = np.unique(groups, return_inverse=True)
    rank = np.argsort(dice.permutation(len(unique)))
    return np.argsort(rank[inverse], kind="stable")


def floor(
    distance: Distance, num_real: int, num_fake: int, groups: np.ndarray, dice: np.random.Generator
) -> Estimate | None:
    """The distance when both sides are real: its mean over random splits of one pool, and where 95 % of them lie.

    The samples of a group lie on one side; so sides may miss their counts by a part of a group.  None with too few
    groups for that.

    distance: takes the numbers of about `num_real` and of `num_fake` clips of a pool of real clips.
    groups: of the pool.
    """
    if len(np.unique(groups)) < LEAST_GROUPS:
        return None
    values = []
    for _ in range(SPLITS):
        order = shuffled(groups, dice)
        cut = nearest_cut(groups[order], num_real)
        values.append(distance(order[:cut], order[cut:]))
    return Estimate(float(np.mean(values)), _NORMAL_95 * float(np.std(values, ddof=1)))


def nearest_cut(ordered: np.ndarray, count: int) -> int:
    """Where to cut samples, which stand group by group, so that about `count` lie before the cut and none is torn."""
    ends = np.flatnonzero(np.diff(ordered)) + 1
    return int(ends[np.abs(ends - count).argmin()])


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of what independent seeds gave, with Student's interval; a single seed gives none."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean)
    return Estimate(mean, half_width_95(values))
