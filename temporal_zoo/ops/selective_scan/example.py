"""Inputs of `selective_scan` at a size and dtype: two directions and a gate."""

from __future__ import annotations

from typing import Any

from temporal_zoo.ops.agreement import Draw, Setting
from temporal_zoo.ops.selective_scan import Direction


def example(draw: Draw, case: Setting) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments, without `lengths`."""
    over_frames = case.rows, case.frames
    directions = [
        Direction(
            u=draw(*over_frames, case.channels),
            dt=draw(*over_frames, case.channels),
            A=draw(case.channels, case.state, low=-4, high=-0.1),
            B=draw(*over_frames, case.state),
            C=draw(*over_frames, case.state),
            skip=draw(case.channels),
            dt_bias=draw(case.channels),
            reverse=reverse,
        )
        for reverse in (False, True)
    ]
    return (directions, draw(*over_frames, case.channels)), {}
