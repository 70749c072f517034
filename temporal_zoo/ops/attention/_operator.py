"""The custom operator `temporal_zoo::attention`, which runs all backends except the reference.

A backend is a module of this folder.  Its `run` is `functools.partial(_operator.run, "name")`, and it defines

    forward(q, k, v, bias, lengths) -> out, lse
    backward(grad, q, k, v, bias, lengths, out, lse, bias_gradient) -> dq, dk, dv, dbias

with q, k, v, out and grad (rows, frames, heads, features), rows at least 1 and at most `ROWS_AT_ONCE`, any strides, and
zero (never NaN) at padded frames; lse (rows, heads, frames), in float32 or float64, the logarithm of the sum over real
keys of exp(logit).  The operator overwrites out at padded frames with zero.  `dbias` is None unless `bias_gradient`.
Autograd and autocast are off.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops._planning import capability
from temporal_zoo.ops._register import backend_module, register

# The kernels of flash-attn, xFormers and SDPA put rows on a grid axis that CUDA limits to this number (pytorch issue
# 142228).  On a CPU slices cost one concatenation.
ROWS_AT_ONCE = 65_535


def run(
    backend: str, q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """`attention` by the named backend."""
    dtype = working_dtype(q)
    return _forward(q.to(dtype), k.to(dtype), v.to(dtype), bias, lengths, backend)[0].to(q.dtype)


def is_ampere(q: Tensor) -> bool:
    """Whether the GPU of q has what bfloat16 and the flash kernels need."""
    return capability(q) >= (8, 0)


def _compute(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, lengths: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    forward = _backend(backend).forward
    outs, lses = [], []
    for rows, real in _slices(q, lengths):
        out, lse = forward(*_filled(real, q[rows], k[rows], v[rows]), bias, real)
        outs += _filled(real, out)
        lses.append(lse)
    empty_out, empty_lse = _empty(q)
    return _joined(outs, empty_out), _joined(lses, empty_lse)


def _gradients(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    out: Tensor,
    lse: Tensor,
    bias_gradient: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    backward = _backend(backend).backward
    grads: tuple[list[Tensor], ...] = ([], [], [])
    dbias = lse.new_zeros(_dbias_shape(bias, bias_gradient))
    for rows, real in _slices(q, lengths):
        filled = _filled(real, grad[rows], q[rows], k[rows], v[rows])
        *of_slice, dbias_of_slice = backward(*filled, bias, real, out[rows], lse[rows], bias_gradient)
        for pieces, piece in zip(grads, of_slice, strict=True):
            pieces.append(piece)
        if bias_gradient:
            dbias += dbias_of_slice
    dq, dk, dv = (_joined(pieces, q.new_empty(q.shape)) for pieces in grads)
    return dq, dk, dv, dbias.to(q.dtype if bias is None else bias.dtype)


def _slices(q: Tensor, lengths: Tensor | None) -> Iterator[tuple[slice, Tensor | None]]:
    for start in range(0, q.shape[0], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        yield rows, None if lengths is None else lengths[rows]


def _filled(lengths: Tensor | None, *tensors: Tensor) -> list[Tensor]:
    """The tensors with zero at padded frames.  Kernels give these weight zero, but zero times NaN is NaN."""
    return [fill_padding(x, lengths) for x in tensors]


def _joined(pieces: list[Tensor], empty: Tensor) -> Tensor:
    """One contiguous tensor, as the fake implementation says."""
    if len(pieces) == 1:
        return pieces[0].contiguous()
    return torch.cat(pieces) if pieces else empty


def _empty(q: Tensor) -> tuple[Tensor, Tensor]:
    """Empty outputs of the operator."""
    rows, frames, heads, _ = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(q.shape), q.new_empty((rows, heads, frames), dtype=wide)


def _dbias_shape(bias: Tensor | None, bias_gradient: bool) -> tuple[int, ...]:
    """The operator always returns a tensor: an empty one if the gradient of a bias is not needed."""
    return tuple(bias.shape) if bias is not None and bias_gradient else (0,)


def _fake(q, k, v, bias, lengths, backend):
    return _empty(q)


def _fake_gradients(grad, q, k, v, bias, lengths, out, lse, bias_gradient, backend):
    dbias = (q if bias is None else bias).new_empty(_dbias_shape(bias, bias_gradient))
    return *(q.new_empty(q.shape) for _ in range(3)), dbias


_backend = partial(backend_module, __package__)
_forward, _ = register(
    _compute,
    _gradients,
    fake=_fake,
    fake_backward=_fake_gradients,
    outputs=("out", "lse"),
    gradients={"grad": "out"},
    differentiable=("q", "k", "v", "bias"),
)
