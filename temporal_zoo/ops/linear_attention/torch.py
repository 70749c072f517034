"""Matrix products in plain torch, some rows at a time, on any device.

With u[j] = w[j] v[j], S = sum_j k[j] u[j]^T and G = sum_i q[i] g[i]^T, where g is the gradient of the numerator,

    dq[i] = S g[i],  dk[j] = G u[j],  du[j] = G^T k[j],  dv[j] = w[j] du[j],  dw[j] = v[j] . du[j]

Short rows build the products of all pairs of frames in place of S and G, which is cheaper; long rows never do.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.linear_attention import _operator

NEEDS = None
CONFIRMED = "torch"
run = partial(_operator.run, "torch")

# Numbers of q in a block: on a CPU its temporaries stay in the second-level cache, elsewhere it keeps a GPU busy.
_BLOCK_ON_CPU = 1 << 16
_BLOCK = 1 << 25


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def forward(q, k, v, weights, norm_q, norm_k, eps, lengths):
    """See `_operator` for what a backend takes and returns."""
    y = q.new_empty(v.shape)
    for rows in _blocks(q):
        bq, bk, bv, bw, bnq, bnk = _real(rows, lengths, q, k, v, weights, norm_q, norm_k)
        num = _mixed(bq, bk, _scaled(bv, bw))
        y[rows] = num if bnq is None else num / _denominator(bnq, bnk, eps)
    return y


def backward(dy, q, k, v, weights, norm_q, norm_k, eps, lengths, y):
    """See `_operator` for what a backend takes and returns."""
    inputs = (q, k, v, weights, norm_q, norm_k)
    grads = [None if x is None else x.new_empty(x.shape) for x in inputs]
    dq, dk, dv, dw, dnq, dnk = grads
    for rows in _blocks(q):
        g, by, bq, bk, bv, bw, bnq, bnk = _real(rows, lengths, dy, y, *inputs)
        if bnq is not None:
            g = g / _denominator(bnq, bnk, eps)
            slope = -(g * by).sum(-1, keepdim=True)
            dnq[rows] = slope * bnk.sum(1, keepdim=True)
            dnk[rows] = (slope * bnq).sum(1, keepdim=True)
        dq[rows], dk[rows], du = _mixed_backward(g, bq, bk, _scaled(bv, bw))
        dv[rows] = _scaled(du, bw)
        if bw is not None:
            dw[rows] = (bv * du).sum(-1)
    # The other gradients are zero at padded frames because their inputs are.
    return grads if dnk is None else [*grads[:-1], fill_padding(dnk, lengths)]


def _blocks(q: Tensor) -> Iterator[slice]:
    per_row = max(1, q[:1].numel())
    size = max(1, (_BLOCK_ON_CPU if q.device.type == "cpu" else _BLOCK) // per_row)
    return (slice(first, first + size) for first in range(0, q.shape[0], size))


def _real(rows: slice, lengths: Tensor | None, *tensors: Tensor | None) -> list[Tensor | None]:
    """The rows of each tensor, wide, zero at padded frames."""
    real = None if lengths is None else lengths[rows]

    def filled(x: Tensor) -> Tensor:
        return fill_padding(x[rows], real).to(torch.promote_types(x.dtype, torch.float32))

    return [None if x is None else filled(x) for x in tensors]


def _mixed(q: Tensor, k: Tensor, u: Tensor) -> Tensor:
    """sum_j (q[i] . k[j]) u[j] for every frame i."""
    q, k, u = _by_head(q, k, u)
    return ((q @ k.mT) @ u if _is_short(k, u) else q @ (k.mT @ u)).transpose(1, 2)


def _mixed_backward(g: Tensor, q: Tensor, k: Tensor, u: Tensor) -> list[Tensor]:
    """The gradients of q, k and u from that of `_mixed`."""
    g, q, k, u = _by_head(g, q, k, u)
    if _is_short(k, u):
        logits, slopes = q @ k.mT, g @ u.mT
        products = slopes @ k, slopes.mT @ q, logits.mT @ g
    else:
        state, dstate = k.mT @ u, q.mT @ g
        products = g @ state.mT, u @ dstate.mT, k @ dstate
    return [x.transpose(1, 2) for x in products]


def _is_short(k: Tensor, u: Tensor) -> bool:
    """Whether the products of pairs of frames cost less than the states: (rows, heads, frames, features) each."""
    frames, features, values = k.shape[2], k.shape[3], u.shape[3]
    return frames * (features + values) < 2 * features * values


def _by_head(*tensors: Tensor) -> list[Tensor]:
    """(rows, heads, frames, features) copies of views of that order, which each product would copy again."""
    return [x.transpose(1, 2).contiguous() for x in tensors]


def _scaled(x: Tensor, weights: Tensor | None) -> Tensor:
    return x if weights is None else x * weights.unsqueeze(-1)


def _denominator(norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
    return (norm_q * norm_k.sum(1, keepdim=True)).sum(-1, keepdim=True) + eps
