"""Growth of a quantity with the number of frames L: exponents, a log-log slope, and a fit a + b L + c L^2.

A fixed cost lowers an exponent, and a large linear term hides a small quadratic one; the fit shows these terms.  The
coefficients b and c are not negative.  The constant a can be, because a backend that works in chunks stores nothing for
the first chunk.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A backend that works in chunks stores a state per chunk: its bytes grow in steps, up to 3 % away from a straight
# line.  Only a larger deviation counts as quadratic.
STRAIGHT = 0.04
# Another term must lower the residual by more than this fraction of the data, so that it does not fit rounding errors.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Quadratic:
    """The fit constant + linear L + quadratic L^2, with L the number of frames, in the units of the fitted values.

    `bend` is the largest relative error of the best straight line; if it is at most `STRAIGHT`, that line is the fit.
    """

    constant: float
    linear: float
    quadratic: float
    bend: float

    def at(self, frames: float) -> float:
        """The fitted value at a number of frames."""
        return self.constant + self.linear * frames + self.quadratic * frames**2

    def quadratic_fraction(self, frames: float) -> float:
        """The quadratic term as a fraction of the fitted value."""
        value = self.at(frames)
        return self.quadratic * frames**2 / value if value else 0.0


def exponents(frames: Sequence[int], values: Sequence[float]) -> list[float | None]:
    """The p of value ~ frames^p between each two successive lengths; None if a value is not positive."""
    pairs = itertools.pairwise(zip(frames, values, strict=True))
    return [math.log(v / u) / math.log(m / n) if u > 0 and v > 0 else None for (n, u), (m, v) in pairs]


def slope(frames: Sequence[int], values: Sequence[float]) -> float | None:
    """The p of value ~ frames^p over all lengths: least squares of logarithms.  None with fewer than two points."""
    points = [(math.log(n), math.log(v)) for n, v in zip(frames, values, strict=True) if v > 0]
    if len(points) < 2:
        return None
    of_frames, of_values = np.array(points).T
    return float(np.polyfit(of_frames, of_values, deg=1)[0])


def slope_error(frames: Sequence[int], spreads: Sequence[float]) -> float:
    """Half-width of the interval of `slope`, for values with these independent relative errors.

    The slope is a weighted sum of the logarithms of the values, so that the squares of their errors add up.
    """
    centred = np.log(np.asarray(frames, dtype=np.float64))
    centred -= centred.mean() if len(frames) else 0.0
    if not centred.any():
        return 0.0
    return float(np.linalg.norm(centred * np.asarray(spreads)) / (centred @ centred))


def quadratic(frames: Sequence[int], values: Sequence[float]) -> Quadratic | None:
    """The fit a + b L + c L^2 with b, c >= 0 and least squared relative error; None with fewer than three points."""
    if len(frames) < 3:
        return None
    target = np.asarray(values, dtype=np.float64)
    if not target.any():
        return Quadratic(0.0, 0.0, 0.0, 0.0)
    scale = float(max(frames))
    terms = np.stack([(np.asarray(frames) / scale) ** power for power in range(3)], axis=1)
    # Relative errors, because values differ by orders of magnitude and short lengths determine a and b.
    weights = 1 / np.maximum(target, target.max() * 1e-6)
    terms, target = terms * weights[:, None], target * weights
    line = _least_squares(terms, target, powers=(0, 1))
    bend = float(np.abs(terms @ line - target).max())
    best = line if bend <= STRAIGHT else _least_squares(terms, target, powers=(0, 1, 2))
    constant, linear, square = (float(c) / scale**power for power, c in enumerate(best))
    return Quadratic(constant, linear, square, bend)


def _least_squares(terms: NDArray, target: NDArray, powers: tuple[int, ...]) -> NDArray:
    """The best coefficients of these powers; all except the constant are at least 0, and fewer terms are better.

    Tries every subset of the terms, which needs no iterative solver.
    """
    best, best_residual, needed = np.zeros(3), math.inf, _ROUNDING * np.linalg.norm(target)
    for count in range(1, len(powers) + 1):
        for subset in map(list, itertools.combinations(powers, count)):
            coefficients = np.linalg.lstsq(terms[:, subset], target, rcond=None)[0]
            residual = float(np.linalg.norm(terms[:, subset] @ coefficients - target))
            valid = all(c >= 0 for power, c in zip(subset, coefficients, strict=True) if power)
            if valid and residual < best_residual - needed:
                best, best_residual = np.zeros(3), residual
                best[subset] = coefficients
    return best
