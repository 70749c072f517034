"""The definition of `linear_attention`, with the products of all pairs of frames: differentiable any number of times.

Axes: r rows, i frames of queries, j frames of keys, k heads, c features, v values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from temporal_zoo.ops._autocast import no_autocast
from temporal_zoo.ops._lengths import fill_padding

NEEDS = None
CONFIRMED = "torch"


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def run(
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
    """The op itself, in plain torch."""
    wide = torch.promote_types(q.dtype, torch.float32)

    def real(x: Tensor) -> Tensor:
        return fill_padding(x, lengths).to(wide)

    with no_autocast(q):
        pairs = torch.einsum("rikc,rjkc->rkij", real(q), real(k))
        if weights is not None:
            pairs = pairs * real(weights).transpose(1, 2)[:, :, None, :]
        if norm_q is not None and norm_k is not None:
            sums = torch.einsum("rikc,rjkc->rkij", real(norm_q), real(norm_k)).sum(-1, keepdim=True)
            pairs = pairs / (sums + eps)
        y = torch.einsum("rkij,rjkv->rikv", pairs, real(v))
    return fill_padding(y.to(q.dtype), lengths)
