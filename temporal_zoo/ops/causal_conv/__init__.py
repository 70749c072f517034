"""Depthwise convolution over the frames of a row, looking back (causal) or ahead (reverse), with SiLU fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import op
from temporal_zoo.ops._lengths import check_lengths

__all__ = ["Filter", "causal_conv"]


@dataclass(frozen=True)
class Filter:
    """One depthwise filter: `weight` (channels, width) in the order of torch's conv1d, `bias` (channels,) or None.

    The last tap weighs the frame itself; the taps before it weigh earlier frames, or with `reverse` later ones.
    """

    weight: Tensor
    bias: Tensor | None = None
    reverse: bool = False


@op("triton", "causal_conv1d", "cpu", "torch", "reference")
def causal_conv(
    x: Tensor,
    filters: Sequence[Filter],
    *,
    silu: bool = False,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
) -> None:
    """Convolves the frames of every channel with each of the filters.

    y[t] = bias + sum_k weight[:, width - 1 - k] x[t - k], with `reverse` x[t + k] in place of x[t - k]; then SiLU, if
    `silu`.  This is the short convolution of Mamba (arXiv 2312.00752, section 3.4) for one or two directions.

    Args:
        x: (rows, frames, channels), any float dtype; products are summed in float32 (float64 for float64 inputs).
        filters: one or more, each with a width of its own; their parameters may be of another float dtype than x.
        silu: whether y passes through x * sigmoid(x).
        lengths: (rows,) int64, each in 1..frames: how many frames are real, or None for all.  Later frames are not read
            (they may hold NaN) and come out zero; a reverse filter starts at the last real frame.
        initial: per filter (rows, width - 1, channels) or None: the inputs, in order of time, before the first frame,
            or with `reverse` after the last real frame.  None means zeros.
        return_final: whether to return also the `initial` of the next chunk.
    Returns:
        a tuple of y, one (rows, frames, channels) per filter, in the dtype of x; with `return_final` a pair of that
        tuple and a tuple of final inputs, one (rows, width - 1, channels) per filter: the last real ones, or with
        `reverse` the first.
    Raises:
        InvalidInput: shapes that do not match, or no frames.
        BackendError: the pinned backend cannot run these inputs.
    Gradients: x, weights, biases, initial; twice with the reference only.
    """
    if x.ndim != 3 or not x.is_floating_point():
        raise InvalidInput(f"x is {tuple(x.shape)} of {x.dtype}; it must be (rows, frames, channels) of a float dtype")
    if not filters:
        raise InvalidInput("causal_conv got no filters; it takes one or more")
    rows, _, channels = x.shape
    for taps in filters:
        if taps.weight.ndim != 2 or taps.weight.shape[0] != channels or taps.weight.shape[1] < 1:
            raise InvalidInput(f"a filter's weight is {tuple(taps.weight.shape)}; it must be ({channels}, width)")
        if taps.bias is not None and taps.bias.shape != (channels,):
            raise InvalidInput(f"a filter's bias is {tuple(taps.bias.shape)}; it must be ({channels},)")
    check_lengths(x, lengths)
    if initial is not None:
        if len(initial) != len(filters):
            raise InvalidInput(f"initial has {len(initial)} entries for {len(filters)} filters")
        for start, taps in zip(initial, filters, strict=True):
            shape = (rows, taps.weight.shape[1] - 1, channels)
            if start is not None and start.shape != shape:
                raise InvalidInput(f"an entry of initial is {tuple(start.shape)}; it must be {shape}")
