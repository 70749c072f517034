"""One direction of the blocked scan: its states, and its adjoint, for one block of rows and one chunk of frames.

Letters: r rows of a block, t frames of a chunk, n state, c channels.  Scratch is (t, r, n, c): a frame is contiguous,
so that a step of the recurrence is one fused multiply-add, and what sums over n or c is a matrix product.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from temporal_zoo.ops.selective_scan import Direction

_LOG2_E = math.log2(math.e)


class Chunk(NamedTuple):
    """What a direction reads in a chunk: frames first, in the dtype of the state, padding filled with zero."""

    u: Tensor  # (t, r, c)
    dt: Tensor  # (t, r, c), bias included
    delta: Tensor  # (t, r, c), zero at padded frames: the state stays, nothing comes in
    B: Tensor  # (t, r, n)
    C: Tensor  # (t, r, n)


def frames_first(x: Tensor, rows: slice, padding: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(rows, frames, ...) -> (frames, r, ...) for a block, zero where (frames, r, 1) `padding` is set."""
    x = x[rows].transpose(0, 1).to(dtype)
    # Filling and not multiplying: what is behind the last real frame may be NaN.
    return x if padding is None else x.masked_fill(padding, 0)


class Sweep:
    """One direction; `chunks` are slices of frames in the order in which it visits them."""

    def __init__(self, direction: Direction, chunk_size: int, dtype: torch.dtype) -> None:
        self.direction, self.dtype = direction, dtype
        self.A = direction.A.to(dtype).mT.contiguous()
        # exp(delta A) as a power of two, which CPUs have the faster function for.
        self.A_log2 = self.A * _LOG2_E
        self.skip, self.dt_bias = direction.skip.to(dtype), direction.dt_bias.to(dtype)
        frames = direction.u.shape[1]
        chunks = [slice(start, min(frames, start + chunk_size)) for start in range(0, frames, chunk_size)]
        self.chunks = chunks[::-1] if direction.reverse else chunks

    def read(self, rows: slice, frames: slice, padding: Tensor | None) -> Chunk:
        padding = None if padding is None else padding[frames]
        u, dt, B, C = (
            frames_first(x[:, frames], rows, padding, self.dtype)
            for x in (self.direction.u, self.direction.dt, self.direction.B, self.direction.C)
        )
        dt = (dt + self.dt_bias).contiguous()
        delta = softplus(dt)
        return Chunk(u, dt, delta if padding is None else delta.masked_fill_(padding, 0), B, C)

    def states(self, chunk: Chunk, start: Tensor | None, scratch: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Runs the recurrence over a chunk.

        Args:
            start: (r, n, c), the state that the chunk begins with, or None for zero.
            scratch: two buffers, overwritten.
        Returns:
            decay (t, r, n, c); the states after each frame (t, r, n, c) and before it (t, r, n, c), which overlap.
        """
        frames, rows, _ = chunk.B.shape
        decay = view(scratch[0], frames, rows, *self.A.shape)
        # One state more than frames: the one that comes in, at the end at which the sweep enters.
        h = view(scratch[1], frames + 1, rows, *self.A.shape)
        after, before = (h[:-1], h[1:]) if self.direction.reverse else (h[1:], h[:-1])
        entering = before[-1] if self.direction.reverse else before[0]
        if start is None:
            entering.zero_()
        else:
            entering.copy_(start)
        torch.mul(chunk.delta.unsqueeze(2), self.A_log2, out=decay).exp2_()
        torch.mul((chunk.delta * chunk.u).unsqueeze(2), chunk.B.unsqueeze(3), out=after)
        steps = zip(self.visited(after), self.visited(decay), self.visited(before), strict=True)
        for h_t, decay_t, h_before in steps:
            h_t.addcmul_(decay_t, h_before)
        return decay, after, before

    def visited(self, x: Tensor) -> tuple[Tensor, ...]:
        """The frames of a chunk in the order in which the sweep visits them."""
        return x.unbind(0)[::-1] if self.direction.reverse else x.unbind(0)

    def leaving(self, x: Tensor) -> Tensor:
        """The last frame that the sweep visits, of a chunk."""
        return x[0] if self.direction.reverse else x[-1]


class Adjoint:
    """The gradients of one direction, filled chunk by chunk, from the last chunk that it visits to the first."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        direction = sweep.direction
        self.u, self.dt, self.B, self.C = (
            x.new_empty(x.shape) for x in (direction.u, direction.dt, direction.B, direction.C)
        )
        self.A, self.skip, self.dt_bias = (torch.zeros_like(x) for x in (sweep.A, sweep.skip, sweep.dt_bias))

    def add(
        self,
        rows: slice,
        frames: slice,
        padding: Tensor | None,
        start: Tensor | None,
        grad_y: Tensor,
        grad_state: Tensor | None,
        scratch: list[Tensor],
    ) -> Tensor:
        """One chunk.

        Args:
            start: (r, n, c), the state that the chunk begins with, or None for zero.
            grad_y: (t, r, c), the gradient of this direction's output.
            grad_state: (r, n, c), that of the state that the chunk ends with, or None for zero.
            scratch: three buffers, overwritten.
        Returns:
            (r, n, c), the gradient of `start`; scratch memory.
        """
        sweep = self.sweep
        chunk = sweep.read(rows, frames, padding)
        decay, after, before = sweep.states(chunk, start, scratch)
        # g, the gradient of a state: what its output asks for, and what the next state asks for through its decay.
        g = view(scratch[2], *decay.shape)
        torch.mul(grad_y.unsqueeze(2), chunk.C.unsqueeze(3), out=g)
        if grad_state is not None:
            sweep.leaving(g).add_(grad_state)
        visits = list(zip(sweep.visited(g), sweep.visited(decay), strict=True))
        for (g_t, _), (g_next, decay_next) in reversed(list(pairwise(visits))):
            g_t.addcmul_(decay_next, g_next)
        g_first, decay_first = visits[0]
        grad_start = g_first * decay_first

        step = chunk.delta * chunk.u
        self._put(self.C, rows, frames, over_channels(after, grad_y))
        self._put(self.B, rows, frames, over_channels(g, step))
        grad_step = over_state(chunk.B, g)
        # The gradient of delta A, of which delta's is the sum over n and A's the sum over frames and rows.
        exponent = decay.mul_(before).mul_(g)
        grad_delta = torch.mul(exponent, sweep.A, out=g).sum(2).addcmul_(grad_step, chunk.u)
        self.A += exponent.mul_(chunk.delta.unsqueeze(2)).sum((0, 1))
        grad_dt = grad_delta.mul_(torch.sigmoid(chunk.dt))
        if padding is not None:
            grad_dt.masked_fill_(padding[frames], 0)
        self._put(self.dt, rows, frames, grad_dt)
        self._put(self.u, rows, frames, grad_step.mul_(chunk.delta).addcmul_(grad_y, sweep.skip))
        self.skip += (grad_y * chunk.u).sum((0, 1))
        self.dt_bias += grad_dt.sum((0, 1))
        return grad_start

    def gradients(self) -> Direction:
        direction = self.sweep.direction
        return Direction(
            self.u,
            self.dt,
            self.A.mT.to(direction.A.dtype, memory_format=torch.contiguous_format),
            self.B,
            self.C,
            self.skip.to(direction.skip.dtype),
            self.dt_bias.to(direction.dt_bias.dtype),
        )

    @staticmethod
    def _put(target: Tensor, rows: slice, frames: slice, value: Tensor) -> None:
        target[rows, frames] = value.transpose(0, 1)


def view(buffer: Tensor, *shape: int) -> Tensor:
    """The beginning of a flat buffer, in a shape."""
    return buffer[: math.prod(shape)].view(shape)


def over_state(weights: Tensor, x: Tensor) -> Tensor:
    """sum_n weights[t r n] x[t r n c] -> (t, r, c)"""
    frames, rows, state, channels = x.shape
    weights = weights.reshape(frames * rows, 1, state)
    return torch.bmm(weights, x.view(frames * rows, state, channels)).view(frames, rows, channels)


def over_channels(x: Tensor, weights: Tensor) -> Tensor:
    """sum_c x[t r n c] weights[t r c] -> (t, r, n)"""
    frames, rows, state, channels = x.shape
    weights = weights.reshape(frames * rows, channels, 1)
    return torch.bmm(x.view(frames * rows, state, channels), weights).view(frames, rows, state)
