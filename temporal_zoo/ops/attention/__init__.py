"""Softmax attention between the frames of a row, every frame with every other."""

from __future__ import annotations

from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import op
from temporal_zoo.ops._lengths import check_lengths

__all__ = ["attention"]


@op("flash_attn", "xformers", "sdpa", "cudnn", "blocked", "triton", "reference")
def attention(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None) -> None:
    """Computes for every frame of a row and every head a weighted mean over all frames.

    out[i] = sum_j softmax_j(q[i] . k[j] / sqrt(features) + bias[i, j]) v[j]   (arXiv 1706.03762, eq. 1)

    The reference stores the weights, rows x heads x frames x frames numbers, for backward.  The other backends do not:
    they store q, k, v, the output and one log-sum per query, and recompute the weights in backward.

    Args:
        q, k, v: (rows, frames, heads, features), one float dtype.  Logits and softmax are in float32 (float64 for
            float64 inputs), under autocast too.
        bias: (heads, frames, frames), any float dtype, added to the logits; [head, query, key].
        lengths: (rows,) int64, each in 1..frames: how many frames are real, or None for all.  Later frames are not read
            (they may hold NaN) and come out zero.
    Returns:
        (rows, frames, heads, features), dtype of q.
    Raises:
        InvalidInput: shapes or dtypes that do not match, or no frames.
        BackendError: the pinned backend cannot run these inputs.
    Gradients: q, k, v and bias; twice with the reference only.
    """
    if q.ndim != 4 or not q.is_floating_point():
        raise InvalidInput(f"q is {tuple(q.shape)} of {q.dtype}; it must be floats (rows, frames, heads, features)")
    for name, x in (("k", k), ("v", v)):
        if x.shape != q.shape or x.dtype != q.dtype:
            raise InvalidInput(f"{name} is {tuple(x.shape)} of {x.dtype}; q is {tuple(q.shape)} of {q.dtype}")
    _, frames, heads, _ = q.shape
    if bias is not None and (bias.shape != (heads, frames, frames) or not bias.is_floating_point()):
        raise InvalidInput(f"bias is {tuple(bias.shape)}; it must be floats of shape ({heads}, {frames}, {frames})")
    check_lengths(q, lengths)
