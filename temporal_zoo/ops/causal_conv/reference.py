"""The definition of `causal_conv`, and the layout of the inputs around a row, which other backends share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.causal_conv import Filter

NEEDS = None
CONFIRMED = "torch"


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def run(
    x: Tensor,
    filters: Sequence[Filter],
    *,
    silu: bool = False,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
):
    """The op itself, in plain torch."""
    frames, precision = x.shape[1], summing_dtype(x)
    ys = []
    for taps, start in zip(filters, initial or [None] * len(filters), strict=True):
        inputs = surround(x.to(precision), taps.weight.shape[1], start, lengths, taps.reverse)
        weight = in_order_of_time(taps.weight, taps.reverse).to(precision)
        y = torch.zeros_like(inputs[:, :frames]) if taps.bias is None else taps.bias.to(precision)
        for j in range(weight.shape[1]):
            y = y + inputs[:, j : j + frames] * weight[:, j]
        ys.append(fill_padding(F.silu(y) if silu else y, lengths).to(x.dtype))
    if not return_final:
        return tuple(ys)
    return tuple(ys), final_inputs(x, filters, lengths, initial)


def summing_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 inputs, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def in_order_of_time(weight: Tensor, reverse: bool) -> Tensor:
    """(channels, width) taps such that y[t] = sum_j taps[:, j] surround(...)[t + j], for both directions."""
    return weight.flip(1) if reverse else weight


def surround(x: Tensor, width: int, start: Tensor | None, lengths: Tensor | None, reverse: bool) -> Tensor:
    """x with the width - 1 inputs before it or, with `reverse`, after its last real frame.

    Returns:
        (rows, frames + width - 1, channels), dtype of x, zero at padded frames.
    """
    rows, _, channels = x.shape
    x = fill_padding(x, lengths)
    start = x.new_zeros(rows, width - 1, channels) if start is None else start.to(x.dtype)
    if not reverse:
        return torch.cat([start, x], dim=1)
    if lengths is None:
        return torch.cat([x, start], dim=1)
    inputs = torch.cat([x, torch.zeros_like(start)], dim=1)
    return inputs.scatter(1, after_last(inputs, width - 1, lengths), start)


def after_last(inputs: Tensor, size: int, lengths: Tensor) -> Tensor:
    """Index (rows, size, channels) of the `size` frames of `inputs` from `lengths` on, for gather and scatter.

    inputs: (rows, frames + size, channels).  `lengths` is clamped to 0..frames: no index points outside of `inputs`.
    """
    rows, length, channels = inputs.shape
    first = lengths.clamp(0, length - size)[:, None]
    return (first + torch.arange(size, device=inputs.device)).unsqueeze(-1).expand(rows, size, channels)


def final_inputs(
    x: Tensor, filters: Sequence[Filter], lengths: Tensor | None, initial: Sequence[Tensor | None] | None
) -> tuple[Tensor, ...]:
    """Per filter the (rows, width - 1, channels) inputs that the next chunk takes as `initial`; dtype of x."""
    finals = []
    for taps, start in zip(filters, initial or [None] * len(filters), strict=True):
        size = taps.weight.shape[1] - 1
        inputs = surround(x, size + 1, start, lengths, taps.reverse)
        if taps.reverse:
            finals.append(inputs[:, :size].clone())
        elif lengths is None:
            finals.append(inputs[:, inputs.shape[1] - size :].clone())
        else:
            finals.append(inputs.gather(1, after_last(inputs, size, lengths)))
    return tuple(finals)
