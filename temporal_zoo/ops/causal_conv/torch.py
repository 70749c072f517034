"""Shifted multiply-adds in place, one block of rows at a time; any device.  Backward recomputes the input of SiLU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.causal_conv import _operator
from temporal_zoo.ops.causal_conv.reference import after_last, in_order_of_time, summing_dtype, surround

NEEDS = None
CONFIRMED = "torch"
# Elements of a block on a CPU: few enough for its temporaries to stay in the second-level cache.
BLOCK = 1 << 16

run = partial(_operator.run, "torch")


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def forward(x, weights, biases, initials, lengths, reverse, silu) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    ys = [x.new_empty(x.shape) for _ in weights]
    for rows in _blocks(x):
        real = None if lengths is None else lengths[rows]
        for i, weight in enumerate(weights):
            start = initials[i][rows] if initials else None
            inputs = surround(x[rows].to(summing_dtype(x)), weight.shape[1], start, real, reverse[i])
            taps = in_order_of_time(weight, reverse[i]).to(inputs.dtype)
            y = _convolve(inputs, taps, biases[i] if biases else None)
            ys[i][rows] = fill_padding(y.mul_(y.sigmoid()) if silu else y, real)
    return ys


def backward(dys, x, weights, biases, initials, lengths, reverse, silu) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    precision, frames = summing_dtype(x), x.shape[1]
    dx = x.new_zeros(x.shape)
    dweights = [torch.zeros_like(weight, dtype=precision) for weight in weights]
    dbiases = [torch.zeros_like(bias, dtype=precision) for bias in biases]
    dinitials = [start.new_empty(start.shape) for start in initials]
    for rows in _blocks(x):
        real = None if lengths is None else lengths[rows]
        total = x.new_zeros(x[rows].shape, dtype=precision)
        for i, weight in enumerate(weights):
            width = weight.shape[1]
            start = initials[i][rows] if initials else None
            inputs = surround(x[rows].to(precision), width, start, real, reverse[i])
            taps = in_order_of_time(weight, reverse[i]).to(precision)
            dtaps = torch.empty_like(taps)
            g = fill_padding(dys[i][rows].to(precision), real)
            if silu:
                g = _through_silu(g, _convolve(inputs, taps, biases[i] if biases else None))
            dinputs = torch.zeros_like(inputs)
            for j in range(width):
                dinputs[:, j : j + frames].addcmul_(g, taps[:, j])
                dtaps[:, j] = (g * inputs[:, j : j + frames]).sum((0, 1))
            dweights[i] += in_order_of_time(dtaps, reverse[i])
            if biases:
                dbiases[i] += g.sum((0, 1))
            if initials:
                dinitials[i][rows] = _at_start(dinputs, width - 1, real, reverse[i])
            total += dinputs[:, :frames] if reverse[i] else dinputs[:, width - 1 :]
        dx[rows] = fill_padding(total, real)
    dweights = [d.to(weight.dtype) for d, weight in zip(dweights, weights, strict=True)]
    dbiases = [d.to(bias.dtype) for d, bias in zip(dbiases, biases, strict=True)]
    return [dx, *dweights, *dbiases, *dinitials]


def _blocks(x: Tensor) -> Iterator[slice]:
    """One block of all rows on a GPU, several blocks on a CPU."""
    rows, frames, channels = x.shape
    size = rows if x.is_cuda else BLOCK // max(1, frames * channels)
    return (slice(first, first + max(1, size)) for first in range(0, rows, max(1, size)))


def _convolve(inputs: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
    frames = inputs.shape[1] - taps.shape[1] + 1
    y = inputs[:, :frames] * taps[:, 0]
    if bias is not None:
        y += bias
    for j in range(1, taps.shape[1]):
        y.addcmul_(inputs[:, j : j + frames], taps[:, j])
    return y


def _through_silu(g: Tensor, pre: Tensor) -> Tensor:
    """d silu(pre) = sigmoid (1 + pre (1 - sigmoid)); overwrites `pre`."""
    gate = pre.sigmoid()
    return pre.mul_(1 - gate).add_(1).mul_(gate).mul_(g)


def _at_start(dinputs: Tensor, size: int, lengths: Tensor | None, reverse: bool) -> Tensor:
    """The part of a gradient of `surround`'s result that belongs to the neighbouring inputs."""
    if not reverse:
        return dinputs[:, :size]
    if lengths is None:
        return dinputs[:, dinputs.shape[1] - size :]
    return dinputs.gather(1, after_last(dinputs, size, lengths))
