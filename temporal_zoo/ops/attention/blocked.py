"""Plain torch, some rows or queries at a time; backward recomputes the weights.

It runs all inputs of the op, the bias and its gradient included, on any device, and holds the weights of one block
only.

Axes: r rows, i frames of queries, j frames of keys, k heads, c features.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops._lengths import padding
from temporal_zoo.ops.attention import _operator

NEEDS = None
CONFIRMED = "torch"
run = partial(_operator.run, "blocked")

# Weights of a block: on a CPU they fit in its caches, elsewhere they are enough to keep a GPU busy (128 MiB).
_WEIGHTS_ON_CPU = 1 << 18
_WEIGHTS = 1 << 25


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def forward(q, k, v, bias, lengths):
    """See `_operator` for what a backend takes and returns."""
    rows, frames, heads, _ = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    out = q.new_empty(q.shape)
    lse = q.new_empty((rows, heads, frames), dtype=wide)
    for row, query in _blocks(q):
        logits = _logits(q[row, query].to(wide), k[row].to(wide), bias, lengths, row, query)
        lse[row, :, query] = logits.logsumexp(-1)
        weights = logits.sub_(lse[row, :, query, None]).exp_()
        out[row, query] = torch.einsum("rkij,rjkc->rikc", weights, v[row].to(wide)).to(out.dtype)
    return out, lse


def backward(grad, q, k, v, bias, lengths, out, lse, bias_gradient):
    """See `_operator` for what a backend takes and returns."""
    scale = q.shape[-1] ** -0.5
    dq = q.new_empty(q.shape)
    dk, dv = (lse.new_zeros(q.shape) for _ in range(2))
    dbias = lse.new_zeros(bias.shape) if bias is not None and bias_gradient else None
    for row, query in _blocks(q):
        queries, slopes = q[row, query].to(lse.dtype), grad[row, query].to(lse.dtype)
        keys, values = k[row].to(lse.dtype), v[row].to(lse.dtype)
        weights = _logits(queries, keys, bias, lengths, row, query).sub_(lse[row, :, query, None]).exp_()
        dv[row] += torch.einsum("rkij,rikc->rjkc", weights, slopes)
        # Softmax: dlogit[j] = weight[j] (dweight[j] - sum_j weight[j] dweight[j]), and the sum is slope . out.
        pulls = torch.einsum("rikc,rikc->rki", slopes, out[row, query].to(lse.dtype))
        dlogits = torch.einsum("rikc,rjkc->rkij", slopes, values).sub_(pulls[..., None]).mul_(weights)
        if dbias is not None:
            dbias[:, query] += dlogits.sum(0)
        dq[row, query] = torch.einsum("rkij,rjkc->rikc", dlogits, keys) * scale
        dk[row] += torch.einsum("rkij,rikc->rjkc", dlogits, queries) * scale
    return dq, dk.to(q.dtype), dv.to(q.dtype), dbias


def _blocks(q: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of rows, and of queries if one row has too many weights."""
    rows, frames, heads, _ = q.shape
    budget = _WEIGHTS_ON_CPU if q.device.type == "cpu" else _WEIGHTS
    num_rows = max(1, budget // (heads * frames * frames))
    num_queries = frames if num_rows > 1 else max(1, min(frames, budget // (heads * frames)))
    for row in range(0, rows, num_rows):
        for query in range(0, frames, num_queries):
            yield slice(row, row + num_rows), slice(query, query + num_queries)


def _logits(
    queries: Tensor, keys: Tensor, bias: Tensor | None, lengths: Tensor | None, row: slice, query: slice
) -> Tensor:
    logits = torch.einsum("rikc,rjkc->rkij", queries * queries.shape[-1] ** -0.5, keys)
    if bias is not None:
        logits += bias[:, query]
    if lengths is not None:
        logits.masked_fill_(padding(keys.shape[1], lengths[row])[:, None, None, :], float("-inf"))
    return logits
