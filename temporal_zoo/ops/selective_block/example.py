"""Inputs of `selective_block` at a size and dtype: two branches, projections without biases."""

from __future__ import annotations

from typing import Any

from temporal_zoo.ops.agreement import Draw, Setting
from temporal_zoo.ops.selective_block import Affine, Branch

# The ops whose backends it runs.
PARTS = ("causal_conv", "selective_scan")


def example(draw: Draw, case: Setting) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments, without `lengths`."""
    inner, rank, wide = case.channels, max(1, case.channels // 16), case.channels**-0.5
    x = draw(case.rows, case.frames, inner // 2)
    in_proj = Affine(draw(2 * inner, inner // 2, low=-wide, high=wide))
    branches = [
        Branch(
            conv_weight=draw(inner, 4),
            conv_bias=draw(inner),
            x_proj=draw(rank + 2 * case.state, inner, low=-wide, high=wide),
            dt_proj=draw(inner, rank),
            dt_bias=draw(inner),
            A=draw(inner, case.state, low=-4, high=-0.1),
            skip=draw(inner),
            reverse=reverse,
        )
        for reverse in (False, True)
    ]
    return (x, in_proj, branches, Affine(draw(inner // 2, inner, low=-wide, high=wide))), {}
