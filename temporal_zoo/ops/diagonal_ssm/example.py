"""Inputs of `diagonal_ssm` at a size and dtype: two directions and a skip weight."""

from __future__ import annotations

from typing import Any

from temporal_zoo.ops.agreement import Draw, Setting
from temporal_zoo.ops.diagonal_ssm import Modes


def example(draw: Draw, case: Setting) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments, without `lengths`."""
    shape = case.channels, case.state
    modes = [
        # Inside the unit circle, as the modes of a stable system are.
        Modes(draw(*shape, complex_valued=True, low=-0.6, high=0.6), draw(*shape, complex_valued=True), reverse)
        for reverse in (False, True)
    ]
    return (draw(case.rows, case.frames, case.channels), modes, draw(case.channels)), {}
