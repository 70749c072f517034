"""Matrix products in plain torch, some rows at a time, on any device.

With S = sum_j w[j] k[j] v[j]^T and G = sum_i q[i] g[i]^T, where g is the gradient of the numerator, the gradients are

    dq[i] = S g[i],  dk[j] = w[j] G v[j],  dv[j] = w[j] G^T k[j],  dw[j] = k[j]^T G v[j]

so the forward pass and these three are one function, `_mixed`.  It takes the cheaper order of its two products: short
rows never build S, and long rows never build the products of all pairs of frames.
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
        bq, bk, bv, bw, bnq, bnk = _by_head(rows, lengths, q, k, v, weights, norm_q, norm_k)
        num = _mixed(bq, bk, _scaled(bv, bw))
        if bnq is not None:
            num /= _denominator(bnq, bnk, eps)
        y[rows] = num.transpose(1, 2)
    return y


def backward(dy, q, k, v, weights, norm_q, norm_k, eps, lengths, y):
    """See `_operator` for what a backend takes and returns."""
    inputs = (q, k, v, weights, norm_q, norm_k)
    grads = [None if x is None else x.new_empty(x.shape) for x in inputs]
    for rows in _blocks(q):
        g, bq, bk, bv, bw, bnq, bnk = _by_head(rows, lengths, dy, *inputs)
        dnq = dnk = None
        if bnq is not None:
            g = g / _denominator(bnq, bnk, eps)
            slope = -(g * _by_head(rows, lengths, y)[0]).sum(-1, keepdim=True)
            dnq = slope * bnk.sum(2, keepdim=True)
            dnk = (slope * bnq).sum(2, keepdim=True).expand_as(bnk)
        dq, pull = _mixed(g, _scaled(bv, bw), bk), _mixed(bv, g, bq)
        dk, dv = _scaled(pull, bw), _scaled(_mixed(bk, bq, g), bw)
        dw = None if bw is None else (bk * pull).sum(-1, keepdim=True)
        for grad, part in zip(grads, (dq, dk, dv, dw, dnq, dnk), strict=True):
            if grad is not None:
                part = part.transpose(1, 2)
                grad[rows] = part.squeeze(-1) if grad.ndim == 3 else part
    # The other gradients are zero at padded frames because their inputs are.
    if grads[-1] is not None:
        grads[-1] = fill_padding(grads[-1], lengths)
    return grads


def _blocks(q: Tensor) -> Iterator[slice]:
    per_row = max(1, q[:1].numel())
    size = max(1, (_BLOCK_ON_CPU if q.device.type == "cpu" else _BLOCK) // per_row)
    return (slice(first, first + size) for first in range(0, q.shape[0], size))


def _by_head(rows: slice, lengths: Tensor | None, *tensors: Tensor | None) -> list[Tensor | None]:
    """The rows of each tensor as (rows, heads, frames, features), wide, zero at padded frames."""
    real = None if lengths is None else lengths[rows]

    def prepared(x: Tensor) -> Tensor:
        x = fill_padding(x[rows], real).to(torch.promote_types(x.dtype, torch.float32))
        # Matrix products would copy other layouts, once for each product.
        return (x if x.ndim == 4 else x.unsqueeze(-1)).transpose(1, 2).contiguous()

    return [None if x is None else prepared(x) for x in tensors]


def _mixed(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """sum_j (x[i] . y[j]) z[j] for every frame i, in the cheaper order of the products."""
    frames, features, values = x.shape[2], y.shape[3], z.shape[3]
    if frames * (features + values) < 2 * features * values:
        return (x @ y.mT) @ z
    return x @ (y.mT @ z)


def _scaled(x: Tensor, weights: Tensor | None) -> Tensor:
    return x if weights is None else x * weights


def _denominator(norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
    return (norm_q * norm_k.sum(2, keepdim=True)).sum(-1, keepdim=True) + eps
