"""Attention between few frames in Triton, several rows per program; `_triton_kernels` holds the computation.

The kernels are tested in Triton's interpreter and compiled for sm_80 and sm_90; none has run on hardware yet, so that
`auto` never comes to this backend: the one before it takes everything.

Fused kernels for long sequences give a program one head of one row, and most of their tile is empty at 16 frames: here
rows fill it.  With `TRITON_INTERPRET=1`, set before the first call, it takes CPU tensors, and its time.
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

# Frames in a tile: those of one row are all in one, and few rows share one, since pairs of rows are computed in vain.
_TILES = (32, 64)
# What tensor cores multiply and registers hold.
_FEATURES = {torch.float32: (16, 32, 64), torch.bfloat16: (16, 32, 64, 128), torch.float16: (16, 32, 64, 128)}


def refuses(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    # Autocast may have the kernels see another dtype than the caller does.
    dtype, features = working_dtype(q), q.shape[-1]
    reasons = _triton.refuses("q", q)
    if q.device.type == "cpu" and dtype == torch.bfloat16:
        reasons.append("Triton's interpreter multiplies no matrices of bfloat16")
    if bias is not None:
        reasons.append("knows no bias")
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
    # Imports Triton, which machines without it must not.
    from temporal_zoo.ops.attention import _triton_kernels

    return _triton_kernels


def _launch(kernel, q: Tensor, *tensors: Tensor | None) -> None:
    rows, frames, heads, features = q.shape
    tile = next(tile for tile in _TILES if tile >= frames)
    rows_per_tile = tile // max(frames, 1)
    # Tensor cores would read the first 11 bits of a float32; three products of such parts make up for it.
    precision = "tf32x3" if q.dtype == torch.float32 else "tf32"
    # Features at a time: as many as a thread of four warps has registers for.
    constants = {"TILE": tile, "PART": min(features, 64 // q.element_size()), "PRECISION": precision, "num_warps": 4}
    programs = -(-rows // rows_per_tile) * heads if frames else 0
    sizes = rows, frames, rows_per_tile
    _triton.launch(kernel, programs, q.device, *tensors, *sizes, heads=heads, features=features, **constants)
