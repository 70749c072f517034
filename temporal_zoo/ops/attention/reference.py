"""The definition of `attention`, with the weights stored: differentiable any number of times, quadratic in memory.

Axes: r rows, i frames of queries, j frames of keys, k heads, c features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from temporal_zoo.ops._autocast import no_autocast
from temporal_zoo.ops._lengths import fill_padding, padding

NEEDS = None
CONFIRMED = "torch"


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def run(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """The op itself, in plain torch."""
    dtype = q.dtype
    # Weight zero is not enough: zero times NaN is NaN, here or in a gradient.
    q, k, v = (fill_padding(x, lengths).to(torch.promote_types(dtype, torch.float32)) for x in (q, k, v))
    with no_autocast(q):
        logits = torch.einsum("rikc,rjkc->rkij", q * q.shape[-1] ** -0.5, k)
        if bias is not None:
            logits = logits + bias
        if lengths is not None:
            logits = logits.masked_fill(padding(q.shape[1], lengths)[:, None, None, :], float("-inf"))
        out = torch.einsum("rkij,rjkc->rikc", logits.softmax(-1), v).to(dtype)
    return fill_padding(out, lengths)
