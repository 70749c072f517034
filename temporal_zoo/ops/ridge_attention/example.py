"""Inputs of `ridge_attention` at a size and dtype: two heads."""

from __future__ import annotations

from typing import Any

from temporal_zoo.ops.agreement import Draw, Setting


def example(draw: Draw, case: Setting) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments, without `lengths`."""
    features = case.channels // 2
    qkv = (draw(case.rows, case.frames, 2, features) for _ in range(3))
    return (*qkv, draw(case.rows, case.frames, 2, low=0), draw(2, features, low=0.25)), {}
