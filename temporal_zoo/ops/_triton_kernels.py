"""Pieces of the Triton kernels of all ops; import only where Triton is."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def real_frames(lengths, row, frames):
    """How many frames of a row are real."""
    real = frames
    if lengths is not None:
        # Clamped, since the caller does not read the values: none may point outside of the row.
        real = tl.minimum(tl.maximum(tl.load(lengths + row), 0), frames).to(tl.int32)
    return real


@triton.jit
def load(pointers, mask):
    """In float32, zero where masked."""
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp2(-x * LOG2_E))
