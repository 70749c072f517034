"""Inputs of `attention` at a size and dtype: two heads, no bias."""

from __future__ import annotations

from typing import Any

from temporal_zoo.ops.agreement import Draw, Setting


def example(draw: Draw, case: Setting) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments, without `lengths`."""
    return tuple(draw(case.rows, case.frames, 2, case.channels // 2) for _ in range(3)), {}
