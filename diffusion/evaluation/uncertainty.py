"""How far a number can be trusted: a distance of samples, its floor between real clips, and a mean over seeds.

For distances, halves of both sets are drawn without replacement: a bootstrap would repeat samples, which shrinks
covariances.

* A statistic of half of the samples deviates from that of all of them as much as that one does from the truth
  (delete-half jackknife; Shao and Wu, 1989), so the spread over halves gives the interval.
* The bias of a Frechet distance falls as 1/N (arXiv 1911.07023), so halves have twice of it, and the value without
  bias is  2 d(N) - mean d(N/2).  See docs/decisions/0016-halves.md for why no line is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from temporal_zoo.student import half_width_95

SPLITS = 20
_NORMAL_95 = 1.96

# Distance of a subset of the real clips to a subset of the fake ones, given by their numbers.
Distance = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Estimate:
    """A number and the half-width of its 95 % interval; None where there were too few samples to tell."""

    value: float
    margin: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.4g}" if self.margin is None else f"{self.value:.4g} ± {self.margin:.2g}"


def estimated(distance: Distance, num_real: int, num_fake: int, dice: np.random.Generator) -> tuple[Estimate, Estimate]:
    """The distance of all samples, and of infinitely many; with fewer than 4 on a side there is no interval."""
    value = distance(np.arange(num_real), np.arange(num_fake))
    if min(num_real, num_fake) < 4:
        return Estimate(value), Estimate(value)
    halves = []
    for _ in range(SPLITS):
        real = np.array_split(dice.permutation(num_real), 2)
        fake = np.array_split(dice.permutation(num_fake), 2)
        halves += [distance(r, f) for r, f in zip(real, fake, strict=True)]
    margin = _NORMAL_95 * float(np.std(halves, ddof=1))
    return Estimate(value, margin), Estimate(2 * value - float(np.mean(halves)), margin)


def floor(distance: Distance, num_real: int, num_fake: int, dice: np.random.Generator) -> Estimate:
    """The distance when both sides are real: its mean over random splits of one pool, and where 95 % of them lie.

    distance: takes the numbers of `num_real` and of `num_fake` clips of a pool of real clips.
    """
    orders = [dice.permutation(num_real + num_fake) for _ in range(SPLITS)]
    values = [distance(order[:num_real], order[num_real:]) for order in orders]
    return Estimate(float(np.mean(values)), _NORMAL_95 * float(np.std(values, ddof=1)))


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of what independent seeds gave, with Student's interval; a single seed gives none."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean)
    return Estimate(mean, half_width_95(values))
