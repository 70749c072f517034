"""Linear attention between the frames of a row: every frame with every other, without softmax."""

from __future__ import annotations

import math

from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import op
from temporal_zoo.ops._lengths import check_lengths

__all__ = ["linear_attention"]


@op("torch", "reference")
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weights: Tensor | None = None,
    norm_q: Tensor | None = None,
    norm_k: Tensor | None = None,
    eps: float = 1e-8,
    lengths: Tensor | None = None,
) -> None:
    """Computes for every frame of a row and every head a weighted sum over all frames, normalised or not.

    y[i] = (sum_j w[j] v[j] k[j]^T) q[i] / (sum_j norm_k[j] . norm_q[i] + eps)   (arXiv 2006.16236, eq. 5)

    Without `norm_q` and `norm_k` there is no denominator.  The denominator has features of its own, because a rotary
    embedding belongs in the numerator only: rotated features may have a negative sum (arXiv 2509.24695).

    Args:
        q, k: (rows, frames, heads, features), one float dtype.  Sums are in float32 (float64 for float64 inputs), under
            autocast too.
        v: (rows, frames, heads, values), dtype of q.
        weights: w, (rows, frames, heads), dtype of q; None means ones.
        norm_q, norm_k: (rows, frames, heads, any number of features), not negative, dtype of q; both or none.
        eps: positive; prevents a division by zero where a frame has no feature above zero.
        lengths: (rows,) int64, each in 1..frames: how many frames are real, or None for all.  Later frames are not read
            (they may hold NaN) and come out zero.
    Returns:
        (rows, frames, heads, values), dtype of q.
    Raises:
        InvalidInput: shapes or dtypes that do not match, no frames, or an `eps` that is not positive.
        BackendError: the pinned backend cannot run these inputs.
    Gradients: q, k, v, weights, norm_q, norm_k; twice with the reference only.
    """
    if q.ndim != 4 or not q.is_floating_point():
        raise InvalidInput(f"q is {tuple(q.shape)} of {q.dtype}; it must be floats (rows, frames, heads, features)")
    if (norm_q is None) != (norm_k is None):
        raise InvalidInput("only one of norm_q and norm_k is given; the denominator needs both")
    if not 0 < eps < math.inf:
        raise InvalidInput(f"eps is {eps}; it must be positive and finite")
    _check("k", k, q, q.shape)
    _check("v", v, q, (*q.shape[:3], v.shape[-1]))
    if weights is not None:
        _check("weights", weights, q, q.shape[:3])
    if norm_q is not None and norm_k is not None:
        _check("norm_q", norm_q, q, (*q.shape[:3], norm_q.shape[-1]))
        _check("norm_k", norm_k, q, norm_q.shape)
    check_lengths(q, lengths)


def _check(name: str, x: Tensor, q: Tensor, shape: tuple[int, ...]) -> None:
    if x.shape != shape or x.dtype != q.dtype:
        raise InvalidInput(
            f"{name} is {tuple(x.shape)} of {x.dtype}; it must be {tuple(shape)} of {q.dtype}, because q is "
            f"{tuple(q.shape)} of {q.dtype}"
        )
