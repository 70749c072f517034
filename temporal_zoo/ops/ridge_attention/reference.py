"""Recursive least squares, one frame after another, in plain torch; differentiable any number of times.

The inverse of the regularised sum of k k^T starts at diag(1 / ridge); each frame changes it by the rank-one formula of
Sherman and Morrison.  So no factorisation is needed, and every tracer of torch can follow.

Axes: r rows, i frames of queries, j frames of keys, h heads, c and d features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from temporal_zoo.ops._autocast import no_autocast
from temporal_zoo.ops._lengths import fill_padding

NEEDS = None
CONFIRMED = "torch"
LOOPS = True
# Added to the square of a length before its root, so that a zero vector has a gradient.
EPSILON = 1e-6


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def run(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, ridge: Tensor, *, lengths: Tensor | None = None) -> Tensor:
    """The op itself, in plain torch."""
    dtype = q.dtype
    wide = torch.promote_types(dtype, torch.float32)
    q, k, v, beta = (fill_padding(x, lengths).to(wide) for x in (q, k, v, beta))
    with no_autocast(q):
        q, k = q * inverse_length(q), k * inverse_length(k)
        products = torch.einsum("rjh,rjhc,rjhd->rhcd", beta, k, v)
        solution = _inverse(k, beta, ridge.to(wide)) @ products
        out = torch.einsum("rihc,rhcd->rihd", q, solution).to(dtype)
    return fill_padding(out, lengths)


def inverse_length(x: Tensor) -> Tensor:
    """1 / sqrt(x . x + EPSILON) over the features: (..., features) -> (..., 1)."""
    return (x.square().sum(-1, keepdim=True) + EPSILON).rsqrt()


def _inverse(k: Tensor, beta: Tensor, ridge: Tensor) -> Tensor:
    """(rows, heads, features, features): the inverse of sum_j beta[j] k[j] k[j]^T + diag(ridge)."""
    inverse = (torch.eye(k.shape[-1], dtype=k.dtype, device=k.device) / ridge[:, None]).expand(k.shape[0], -1, -1, -1)
    for key, weight in zip(k.unbind(1), beta.unbind(1), strict=True):
        step = (inverse @ key[..., None]).squeeze(-1)
        scale = weight / (1 + weight * (key * step).sum(-1))
        inverse = inverse - scale[..., None, None] * step[..., :, None] * step[..., None, :]
    return inverse
