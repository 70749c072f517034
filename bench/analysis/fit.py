"""How a quantity grows with the number of frames: exponents, a log-log slope, and a fit a + b L + c L^2.

A fixed cost hides an exponent and a linear part hides a quadratic one, hence the fit beside the exponents.  What grows
cannot have a negative coefficient; the constant can, because a backend that works in chunks keeps nothing for its
first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A backend that works in chunks keeps a state per chunk: its bytes climb in steps, up to 3 % away from any straight
# line.  Only what bends more is called quadratic.
STRAIGHT = 0.04
# A further term has to lower the residual by more than this share of the data: rounding errors are not a growth law.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Quadratic:
    """constant + linear L + quadratic L^2, L the number of frames; units are those of the fitted values.

    `bend` is the largest relative error of the best straight line; up to `STRAIGHT`, that line is the fit.
    """

    constant: float
    linear: float
    quadratic: float
    bend: float

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
    of_frames, of_values = np.array(points).T
    return float(np.polyfit(of_frames, of_values, deg=1)[0])


def slope_error(frames: Sequence[int], spreads: Sequence[float]) -> float:
    """How far `slope` may be off when its values are, independently, by these shares: half-width of its interval.

    The slope is a weighted sum of the logarithms of its values, so that their errors add up as squares.
    """
    centred = np.log(np.asarray(frames, dtype=np.float64))
    centred -= centred.mean() if len(frames) else 0.0
    if not centred.any():
        return 0.0
    return float(np.linalg.norm(centred * np.asarray(spreads)) / (centred @ centred))


def quadratic(frames: Sequence[int], values: Sequence[float]) -> Quadratic | None:
    """The fit a + b L + c L^2 with b, c >= 0 of least relative squared error; None with fewer than three points."""
    if len(frames) < 3:
        return None
    target = np.asarray(values, dtype=np.float64)
    if not target.any():
        return Quadratic(0.0, 0.0, 0.0, 0.0)
    scale = float(max(frames))
    terms = np.stack([(np.asarray(frames) / scale) ** power for power in range(3)], axis=1)
    # Relative errors: the values span decades, and the short lengths hold what is known of a and b.
    weights = 1 / np.maximum(target, target.max() * 1e-6)
    terms, target = terms * weights[:, None], target * weights
    line = _least_squares(terms, target, powers=(0, 1))
    bend = float(np.abs(terms @ line - target).max())
    found = line if bend <= STRAIGHT else _least_squares(terms, target, powers=(0, 1, 2))
    constant, linear, square = (float(c) / scale**power for power, c in enumerate(found))
    return Quadratic(constant, linear, square, bend)


def _least_squares(terms: NDArray, target: NDArray, powers: tuple[int, ...]) -> NDArray:
    """The best coefficients of these powers, all but the constant's at least zero, the fewer the better.

    So few unknowns allow to try every subset of the terms, so that no solver is needed.
    """
    best, best_residual, needed = np.zeros(3), math.inf, _ROUNDING * np.linalg.norm(target)
    for count in range(1, len(powers) + 1):
        for kept in map(list, itertools.combinations(powers, count)):
            found = np.linalg.lstsq(terms[:, kept], target, rcond=None)[0]
            residual = float(np.linalg.norm(terms[:, kept] @ found - target))
            if all(c >= 0 for power, c in zip(kept, found, strict=True) if power) and residual < best_residual - needed:
                best, best_residual = np.zeros(3), residual
                best[kept] = found
    return best
