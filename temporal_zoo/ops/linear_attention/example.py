"""Inputs of `linear_attention` at a size and dtype: two heads, weights, and a denominator with features of its own."""

from __future__ import annotations

from typing import Any

from temporal_zoo.ops.agreement import Draw, Setting


def example(draw: Draw, case: Setting) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments, without `lengths`."""
    shape = (case.rows, case.frames, 2, case.channels // 2)
    keywords = {
        "weights": draw(*shape[:3], low=0),
        "norm_q": draw(*shape, low=0.1),
        "norm_k": draw(*shape, low=0.1),
    }
    return tuple(draw(*shape) for _ in range(3)), keywords
