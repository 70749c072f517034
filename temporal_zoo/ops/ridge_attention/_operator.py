"""The custom operator `temporal_zoo::ridge_attention`, which runs all backends except the reference.

A backend is a module of this folder.  Its `run` is `functools.partial(_operator.run, "name")`, and it defines

    forward(q, k, v, beta, ridge, lengths) -> out
    backward(grad, q, k, v, beta, ridge, lengths) -> [dq, dk, dv, dbeta, dridge]

with q, k, v, out and grad (rows, frames, heads, features), beta (rows, frames, heads), ridge (heads, features) and
`lengths` (rows,) int64 or None, of any strides.  Padded frames may hold NaN (also in `grad`), and the number of rows
may be zero.  Results are new contiguous tensors in the shapes and dtypes of q and of the arguments, zero at padded
frames.  Autograd and autocast are off.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops._register import backend_module, register


def run(
    backend: str, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, ridge: Tensor, *, lengths: Tensor | None = None
) -> Tensor:
    """`ridge_attention` by the named backend."""
    dtype = working_dtype(q)
    return _forward(q.to(dtype), k.to(dtype), v.to(dtype), beta, ridge, lengths, backend).to(q.dtype)


def _compute(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, ridge: Tensor, lengths: Tensor | None, backend: str
) -> Tensor:
    return _backend(backend).forward(q, k, v, beta, ridge, lengths)


def _gradients(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    ridge: Tensor,
    lengths: Tensor | None,
    backend: str,
) -> list[Tensor]:
    return _backend(backend).backward(grad, q, k, v, beta, ridge, lengths)


def _fake(q, k, v, beta, ridge, lengths, backend):
    return q.new_empty(q.shape)


_backend = partial(backend_module, __package__)
_forward, _ = register(
    _compute,
    _gradients,
    fake=_fake,
    outputs=("out",),
    gradients={"grad": "out"},
    differentiable=("q", "k", "v", "beta", "ridge"),
)
