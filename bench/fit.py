"""How a quantity grows with the number of frames: exponents, a log-log slope, and a fit a + b L + c L^2.

A fixed cost hides an exponent and a linear part hides a quadratic one, hence the fit beside the exponents: its
coefficients cannot be negative, so the share of each term is a share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A further term has to lower the residual by more than this share of the data: rounding errors are not a growth law.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Quadratic:
    """constant + linear L + quadratic L^2, L the number of frames; units are those of the fitted values."""

    constant: float
    linear: float
    quadratic: float

    def at(self, frames: float) -> float:
        """The fitted value at a number of frames."""
        return self.constant + self.linear * frames + self.quadratic * frames**2

    def share(self, frames: float) -> float:
        """The quadratic term's share of the fitted value, 0 to 1."""
        whole = self.at(frames)
        return self.quadratic * frames**2 / whole if whole else 0.0


def exponents(frames: Sequence[int], values: Sequence[float]) -> list[float | None]:
    """Between each two neighbouring lengths, the p of value ~ frames^p; None where a value is not positive."""
    pairs = itertools.pairwise(zip(frames, values, strict=True))
    return [math.log(v / u) / math.log(m / n) if u > 0 and v > 0 else None for (n, u), (m, v) in pairs]


def slope(frames: Sequence[int], values: Sequence[float]) -> float | None:
    """The p of value ~ frames^p over all lengths: least squares in the logarithms.  None with fewer than two points."""
    points = [(math.log(n), math.log(v)) for n, v in zip(frames, values, strict=True) if v > 0]
    if len(points) < 2:
        return None
    return float(np.polyfit(*zip(*points, strict=True), deg=1)[0])


def quadratic(frames: Sequence[int], values: Sequence[float]) -> Quadratic | None:
    """The fit a + b L + c L^2 with a, b, c >= 0 of least relative squared error; None with fewer than three points.

    Three unknowns allow to try every subset of the terms, so that no solver is needed.
    """
    if len(frames) < 3:
        return None
    values_ = np.asarray(values, dtype=np.float64)
    if not values_.any():
        return Quadratic(0.0, 0.0, 0.0)
    scale = float(max(frames))
    lengths = np.asarray(frames, dtype=np.float64) / scale
    # Relative errors: the values span decades, and the short lengths hold what is known of a and b.
    weights = 1 / np.maximum(values_, values_.max() * 1e-6)
    terms, target = np.stack([lengths**power for power in range(3)], axis=1) * weights[:, None], values_ * weights
    best, best_residual = np.zeros(3), float(np.linalg.norm(target))
    for count in (1, 2, 3):
        for kept in map(list, itertools.combinations(range(3), count)):
            found = np.linalg.lstsq(terms[:, kept], target, rcond=None)[0]
            residual = float(np.linalg.norm(terms[:, kept] @ found - target))
            if (found >= 0).all() and residual < best_residual - _ROUNDING * np.linalg.norm(target):
                best, best_residual = np.zeros(3), residual
                best[kept] = found
    return Quadratic(*(float(c) / scale**power for power, c in enumerate(best)))
