"""A kernel that only computes exponentials.  This module needs Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exponentials(out, REPEATS: tl.constexpr, BLOCK: tl.constexpr):
    """Computes `REPEATS` exponentials for each entry of `out`, one after the other."""
    indices = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = indices.to(tl.float32) * 1e-9
    for _ in range(REPEATS):
        x = tl.exp2(-x)
    tl.store(out + indices, x)
