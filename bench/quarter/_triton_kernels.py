"""A kernel that computes nothing but exponentials; import only where Triton is."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exponentials(out, REPEATS: tl.constexpr, BLOCK: tl.constexpr):
    """`REPEATS` exponentials for each entry of `out`, one after the other."""
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = places.to(tl.float32) * 1e-9
    for _ in range(REPEATS):
        x = tl.exp2(-x)
    tl.store(out + places, x)
