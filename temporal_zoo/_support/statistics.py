"""Student's t: how far the mean of a few numbers may be from the one that they scatter around."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np


def half_width_95(values: Sequence[float]) -> float:
    """Half-width of the 95 % interval of the mean of independent values, of which there must be two."""
    return student_975(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


@cache
def student_975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: with t = sqrt(f) tan(a), the density of a is cos(a)^(f-1) up to a factor."""
    angle, width = np.linspace(-math.pi / 2, math.pi / 2, 200_000, endpoint=False, retstep=True)
    mass = np.cumsum(np.cos(angle + width / 2) ** (freedom - 1))
    place = np.interp(0.975 * mass[-1], mass, angle + width)
    return math.sqrt(freedom) * math.tan(float(place))
