"""The custom operator `temporal_zoo::linear_attention`, which runs all backends except the reference.

A backend is a module of this folder.  Its `run` is `functools.partial(_operator.run, "name")`, and it defines

    forward(q, k, v, weights, norm_q, norm_k, eps, lengths) -> y
    backward(dy, q, k, v, weights, norm_q, norm_k, eps, lengths, y) -> [dq, dk, dv, dweights, dnorm_q, dnorm_k]

with the shapes of the op; `weights` and the pair `norm_q`, `norm_k` may be None, and then their gradients are None.
Tensors have any strides, padded frames may hold NaN (also in dy), and the number of rows may be zero.  Results are new
contiguous tensors in the dtype of q, zero at padded frames.  Autograd and autocast are off.  Backward gets the inputs
and y, so a training step stores only these.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops._register import backend_module, register


def run(
    backend: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weights: Tensor | None = None,
    norm_q: Tensor | None = None,
    norm_k: Tensor | None = None,
    eps: float = 1e-8,
    lengths: Tensor | None = None,
) -> Tensor:
    """`linear_attention` by the named backend."""
    dtype = working_dtype(q)
    inputs = [None if x is None else x.to(dtype) for x in (q, k, v, weights, norm_q, norm_k)]
    return _forward(*inputs, eps, lengths, backend).to(q.dtype)


def _compute(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor | None,
    norm_q: Tensor | None,
    norm_k: Tensor | None,
    eps: float,
    lengths: Tensor | None,
    backend: str,
) -> Tensor:
    return _backend(backend).forward(q, k, v, weights, norm_q, norm_k, eps, lengths)


def _gradients(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor | None,
    norm_q: Tensor | None,
    norm_k: Tensor | None,
    eps: float,
    lengths: Tensor | None,
    y: Tensor,
    backend: str,
) -> list[Tensor]:
    grads = _backend(backend).backward(dy, q, k, v, weights, norm_q, norm_k, eps, lengths, y)
    return [grad for grad in grads if grad is not None]


def _fake(q, k, v, weights, norm_q, norm_k, eps, lengths, backend):
    return q.new_empty(v.shape)


_backend = partial(backend_module, __package__)
_forward, _ = register(
    _compute,
    _gradients,
    fake=_fake,
    outputs=("y",),
    gradients={"dy": "y"},
    differentiable=("q", "k", "v", "weights", "norm_q", "norm_k"),
)
