"""The kernels of the Triton backend; importing this module imports Triton.

A program runs one row (backward: a few rows, one after the other) for one block of channels, filter by filter, and
visits the frames in the filter's direction.  Channels are on the lanes of one warp, and the inputs under the taps are
in registers, so that each frame is read once and lanes exchange no values.

Letters: d channels, padded; t frames.  A window is a tuple of one (d,) vector per tap; the first visited comes first.
"""

# ruff: noqa: RUF005 (Triton compiles no starred expressions)
from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from temporal_zoo.ops._triton_kernels import load, real_frames, sigmoid


class FilterArguments(NamedTuple):
    """Inputs of one filter, and y or the gradient of y; contiguous, weight (width, d) in float32."""

    weight: Any
    bias: Any
    initial: Any
    y: Any
    width: Any
    reverse: Any


class FilterGradientArguments(NamedTuple):
    """FilterGradientArguments of one filter; the first axis of weight and bias is a partial sum per group of rows."""

    weight: Any
    bias: Any
    initial: Any


@triton.jit(do_not_specialize=["frames"])
def forward(
    filters, x, lengths, frames, row_stride, frame_stride,
    count: tl.constexpr, channels: tl.constexpr, silu: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per row and block of channels: all filters, one after the other."""
    blocks: tl.constexpr = tl.cdiv(channels, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    d = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    real = real_frames(lengths, row, frames)
    for index in tl.static_range(count):
        _convolve(filters[index], x + row * row_stride, row, real, frames, frame_stride, d, channels, silu)


@triton.jit
def _convolve(filter, x, row, real, frames, frame_stride, d, channels: tl.constexpr, silu: tl.constexpr):
    live = d < channels
    taps, bias = _parameters(filter, d, channels)
    window = _before(filter, row, d, channels)
    for step in range(0, real):
        t = real - 1 - step if filter.reverse else step
        window = window + (load(x + t * frame_stride + d, live),)
        y = _weighted(taps, window, bias)
        if silu:
            y *= sigmoid(y)
        tl.store(filter.y + (row * frames + t) * channels + d, y, mask=live)
        window = window[1:]


@triton.jit(do_not_specialize=["rows", "rows_per_program", "frames"])
def backward(
    filters, gradients, x, grad_x, lengths, rows, rows_per_program, frames, row_stride, frame_stride,
    count: tl.constexpr, channels: tl.constexpr, silu: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per group of rows and block of channels; gradients of parameters are summed over its rows."""
    blocks: tl.constexpr = tl.cdiv(channels, BLOCK)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    first = group * rows_per_program
    last = tl.minimum(first + rows_per_program, rows)
    d = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    for index in tl.static_range(count):
        if index:
            # Another thread of the warp may have written the sum to which this filter adds.
            tl.debug_barrier()
        _differentiate(
            filters[index], gradients[index], x, grad_x, lengths,
            group, first, last, frames, row_stride, frame_stride, d, channels, silu, index > 0,
        )  # fmt: skip


@triton.jit
def _differentiate(
    filter, grads, x, grad_x, lengths, group, first, last, frames, row_stride, frame_stride, d,
    channels: tl.constexpr, silu: tl.constexpr, add: tl.constexpr,
):  # fmt: skip
    live = d < channels
    taps, bias = _parameters(filter, d, channels)
    grad_bias = tl.zeros_like(bias)
    grad_taps = _zeros(bias, filter.width)
    for row in range(first, last):
        real = real_frames(lengths, row, frames)
        window = _before(filter, row, d, channels)
        # The gradients of the window, to which later frames contribute.
        grad_window = _zeros(bias, filter.width - 1)
        for step in range(0, real):
            t = real - 1 - step if filter.reverse else step
            window = window + (load(x + row * row_stride + t * frame_stride + d, live),)
            slope = load(filter.y + (row * frames + t) * channels + d, live)
            if silu:
                seen = _weighted(taps, window, bias)
                gate = sigmoid(seen)
                slope *= gate * (1 + seen * (1 - gate))
            grad_bias += slope
            grad_taps = _plus(grad_taps, slope, window)
            grad_window = _plus(grad_window + (tl.zeros_like(bias),), slope, taps)
            _settle(filter, grads, grad_x, grad_window[0], step, row, real, frames, d, channels, add)
            window = window[1:]
            grad_window = grad_window[1:]
        for k in tl.static_range(filter.width - 1):
            _settle(filter, grads, grad_x, grad_window[k], real + k, row, real, frames, d, channels, add)
    for k in tl.static_range(filter.width):
        tl.store(grads.weight + (group * filter.width + k) * channels + d, grad_taps[k], mask=live)
    if grads.bias is not None:
        tl.store(grads.bias + group * channels + d, grad_bias, mask=live)


@triton.jit
def _settle(filter, grads, grad_x, grad, step, row, real, frames, d, channels: tl.constexpr, add: tl.constexpr):
    """Stores the gradient of the input under the first tap: a frame, or an input before all frames."""
    before: tl.constexpr = filter.width - 1
    live = d < channels
    visited = step - before
    if visited >= 0:
        t = real - 1 - visited if filter.reverse else visited
        here = (row * frames + t) * channels + d
        if add:
            grad += load(grad_x + here, live)
        tl.store(grad_x + here, grad, mask=live)
    elif grads.initial is not None:
        index = before - 1 - step if filter.reverse else step
        tl.store(grads.initial + (row * before + index) * channels + d, grad, mask=live)


@triton.jit
def _parameters(filter, d, channels: tl.constexpr):
    """The taps as a window, and the bias."""
    taps = tl.tuple(())
    for k in tl.static_range(filter.width):
        taps = taps + (load(filter.weight + k * channels + d, d < channels),)
    bias = tl.zeros_like(taps[0])
    if filter.bias is not None:
        bias = load(filter.bias + d, d < channels)
    return taps, bias


@triton.jit
def _before(filter, row, d, channels: tl.constexpr):
    """The window before the first step, without its last entry."""
    before: tl.constexpr = filter.width - 1
    window = tl.tuple(())
    for k in tl.static_range(before):
        if filter.initial is None:
            window = window + (tl.zeros(d.shape, tl.float32),)
        else:
            # In order of time; a reverse filter visits the frames from the end.
            index = before - 1 - k if filter.reverse else k
            window = window + (load(filter.initial + (row * before + index) * channels + d, d < channels),)
    return window


@triton.jit
def _weighted(taps, window, bias):
    total = bias
    for k in tl.static_range(len(taps)):
        total += taps[k] * window[k]
    return total


@triton.jit
def _plus(window, scale, other):
    """window + scale * other."""
    total = tl.tuple(())
    for k in tl.static_range(len(other)):
        total = total + (window[k] + scale * other[k],)
    return total


@triton.jit
def _zeros(like, size: tl.constexpr):
    window = tl.tuple(())
    for _ in tl.static_range(size):
        window = window + (tl.zeros_like(like),)
    return window
