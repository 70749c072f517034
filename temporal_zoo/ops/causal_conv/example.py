"""Inputs of `causal_conv` at a size and dtype: a filter in each direction, with SiLU."""

from __future__ import annotations

from typing import Any

from temporal_zoo.ops.agreement import Draw, Setting
from temporal_zoo.ops.causal_conv import Filter


def example(draw: Draw, case: Setting) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments, without `lengths`."""
    filters = [Filter(draw(case.channels, 4), draw(case.channels), reverse=reverse) for reverse in (False, True)]
    return (draw(case.rows, case.frames, case.channels), filters), {"silu": True}
