"""Ridge regression from keys to values within a row, read at the queries: attention without a softmax."""

from __future__ import annotations

from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import op
from temporal_zoo.ops._lengths import check_lengths

__all__ = ["ridge_attention"]


@op("torch", "reference")
def ridge_attention(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, ridge: Tensor, *, lengths: Tensor | None = None
) -> None:
    """Fits a linear map from keys to values over all frames of a row, and applies it to every query.

    out[i] = (sum_j beta[j] v[j] k[j]^T) (sum_j beta[j] k[j] k[j]^T + diag(ridge))^-1 q[i]

    per head, where q and k are first divided by their lengths (x / sqrt(x . x + 1e-6)).  The matrix before q[i] is the
    W with the least sum_j beta[j] |v[j] - W k[j]|^2 + |W sqrt(diag(ridge))|^2 (the mesa layer, arXiv 2506.05233,
    without decay and with all frames instead of the past ones).  Backward gets q, k, v, beta and ridge, and solves
    again; nothing else is stored.

    Args:
        q, k, v: (rows, frames, heads, features), one float dtype.  Sums and solutions are in float32 (float64 for
            float64 inputs), under autocast too.
        beta: (rows, frames, heads), any float dtype: the weight of a frame in the fit, at least 0.
        ridge: (heads, features), any float dtype, above 0.
        lengths: (rows,) int64, each in 1..frames: how many frames are real, or None for all.  Later frames are not read
            (they may hold NaN) and come out zero.
    Returns:
        (rows, frames, heads, features), dtype of q.
    Raises:
        InvalidInput: shapes or dtypes that do not match, or no frames.
        BackendError: the pinned backend cannot run these inputs.
    Gradients: q, k, v, beta and ridge; twice with the reference only.
    """
    if q.ndim != 4 or not q.is_floating_point():
        raise InvalidInput(f"q is {tuple(q.shape)} of {q.dtype}; it must be floats (rows, frames, heads, features)")
    for name, x in (("k", k), ("v", v)):
        if x.shape != q.shape or x.dtype != q.dtype:
            raise InvalidInput(f"{name} is {tuple(x.shape)} of {x.dtype}; q is {tuple(q.shape)} of {q.dtype}")
    for name, x, shape in (("beta", beta, q.shape[:3]), ("ridge", ridge, q.shape[2:])):
        if x.shape != shape or not x.is_floating_point():
            raise InvalidInput(f"{name} is {tuple(x.shape)} of {x.dtype}; it must be floats of shape {tuple(shape)}")
    check_lengths(q, lengths)
