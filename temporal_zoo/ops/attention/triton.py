"""Attention between few frames in Triton, several rows per program; kernels in `_triton_kernels`.

The kernels are tested in Triton's interpreter and compiled for sm_80 and sm_90; none has run on hardware yet.  `auto`
never chooses this backend, because the one before it takes all inputs.

In fused kernels for long sequences a program computes one head of one row, and most of its tile is empty at 16 frames.
Here several rows fill the tile.  With `TRITON_INTERPRET=1`, set before the first call, it takes CPU tensors and is
slow.
"""

from __future__ import annotations

from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from temporal_zoo.ops import _triton
from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops.attention import _operator

NEEDS = "triton"
CONFIRMED = None
run = partial(_operator.run, "triton")

# Frames in a tile.  All frames of a row are in one tile, and few rows share it, because pairs of rows are wasted work.
_TILES = (32, 64)
# Sizes that tensor cores multiply and that fit in registers.
_FEATURES = {torch.float32: (16, 32, 64), torch.bfloat16: (16, 32, 64, 128), torch.float16: (16, 32, 64, 128)}


def refuses(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    # Under autocast the kernels get another dtype than the caller passes.
    dtype, features = working_dtype(q), q.shape[-1]
    reasons = _triton.refuses("q", q)
    if q.device.type == "cpu" and dtype == torch.bfloat16:
        reasons.append("Triton's interpreter cannot multiply matrices of bfloat16")
    if bias is not None:
        reasons.append("takes no bias")
    if q.shape[1] > _TILES[-1]:
        reasons.append(f"takes at most {_TILES[-1]} frames, q has {q.shape[1]}")
    if features not in (takes := _FEATURES.get(dtype, (features,))):
        reasons.append(f"takes {', '.join(map(str, takes))} features of {dtype}, q has {features}")
    return reasons


def forward(q, k, v, bias, lengths):
    """See `_operator` for what a backend takes and returns."""
    rows, frames, heads, _ = q.shape
    out, lse = q.new_empty(q.shape), q.new_empty((rows, heads, frames), dtype=torch.float32)
    inputs = [x.contiguous() for x in (q, k, v)]
    _launch(_kernels().forward, q, *inputs, out, lse, _triton.contiguous(lengths))
    return out, lse


def backward(grad, q, k, v, bias, lengths, out, lse, bias_gradient):
    """See `_operator` for what a backend takes and returns."""
    dq, dk, dv = (q.new_empty(q.shape) for _ in range(3))
    inputs = [x.contiguous() for x in (grad, q, k, v, out, lse)]
    _launch(_kernels().backward, q, *inputs, _triton.contiguous(lengths), dq, dk, dv)
    return dq, dk, dv, None


def _kernels() -> ModuleType:
    # A function, because importing the kernels imports Triton.
    from temporal_zoo.ops.attention import _triton_kernels

    return _triton_kernels


def _launch(kernel, q: Tensor, *tensors: Tensor | None) -> None:
    rows, frames, heads, features = q.shape
    tile = next(tile for tile in _TILES if tile >= frames)
    rows_per_tile = tile // max(frames, 1)
    # Tensor cores read the first 11 bits of a float32; three products of such parts restore the precision.
    precision = "tf32x3" if q.dtype == torch.float32 else "tf32"
    # Features at a time: as many as fit in the registers of a thread, with four warps.
    constants = {"TILE": tile, "PART": min(features, 64 // q.element_size()), "PRECISION": precision, "num_warps": 4}
    programs = -(-rows // rows_per_tile) * heads if frames else 0
    sizes = rows, frames, rows_per_tile
    _triton.launch(kernel, programs, q.device, *tensors, *sizes, heads=heads, features=features, **constants)
