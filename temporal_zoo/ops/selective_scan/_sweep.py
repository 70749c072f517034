"""One direction of the blocked scan: its states, and its gradients, for one block of rows and one chunk of frames.

Letters: r rows of a block, t frames of a chunk, n state, c channels.  Scratch is (t, r, n, c): a frame is contiguous,
so that a step of the recurrence is one fused multiply-add, vectorised over channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from temporal_zoo.ops.selective_scan import Direction
from temporal_zoo.ops.selective_scan._operator import Filled

_LOG2_E = math.log2(math.e)


class Chunk(NamedTuple):
    """Inputs of a direction in a chunk: frames first, in the dtype of the state, zero at padded frames."""

    u: Tensor  # (t, r, c)
    dt: Tensor  # (t, r, c), bias included
    delta: Tensor  # (t, r, c), zero at padded frames, which therefore do not change the state
    step: Tensor  # (t, r, c), delta u
    B: Tensor  # (t, r, n)
    C: Tensor  # (t, r, n)


class Scratch:
    """Views of flat buffers for chunks of one size, each (t, r, n, c); created once: a view costs as much as its use.

    `before` and `after` are the states before and after each frame.  They overlap: there is one state more than
    frames, at the end where the sweep enters.
    `steps` are the (state, decay, state before) of the recurrence in the order of the sweep; `steps_back` are the
    (gradient, decay, gradient after) of its adjoint in the opposite order.
    """

    def __init__(self, buffers: Sequence[Tensor], shape: tuple[int, int, int, int], reverse: bool) -> None:
        frames, *rest = shape
        self.decay = _view(buffers[0], shape)
        states = _view(buffers[1], (frames + 1, *rest))
        self.after, self.before = (states[:-1], states[1:]) if reverse else (states[1:], states[:-1])
        self.first, self.last = (frames - 1, 0) if reverse else (0, frames - 1)
        self.entering, self.leaving = self.before[self.first], self.after[self.last]
        visits = [x.unbind(0)[::-1] if reverse else x.unbind(0) for x in (self.after, self.decay, self.before)]
        self.steps = list(zip(*visits, strict=True))
        if len(buffers) > 2:
            self.grads = _view(buffers[2], shape)
            visits = [x.unbind(0)[::-1] if reverse else x.unbind(0) for x in (self.grads, self.decay)]
            pairs = pairwise(zip(*visits, strict=True))
            self.steps_back = [(grad, decay, after) for (grad, _), (after, decay) in pairs][::-1]


class Sweep:
    """One direction, chunk by chunk; `chunks` are slices of frames in the order in which it visits them.

    Args:
        buffers: two flat ones for `states`, three for `Gradients`, each large enough for a chunk and one state more.
    """

    def __init__(self, direction: Filled, chunk_size: int, buffers: Sequence[Tensor]) -> None:
        self.direction = direction
        self.dtype = buffers[0].dtype
        self.A = direction.A.to(self.dtype).mT.contiguous()
        # exp(delta A) as a power of two, because exp2 is faster on CPUs.
        self.A_log2 = self.A * _LOG2_E
        self.skip, self.dt_bias = direction.skip.to(self.dtype), direction.dt_bias.to(self.dtype)
        frames = direction.u.shape[1]
        chunks = [slice(start, min(frames, start + chunk_size)) for start in range(0, frames, chunk_size)]
        self.chunks = chunks[::-1] if direction.reverse else chunks
        self._buffers = buffers
        self._scratch: dict[tuple[int, int], Scratch] = {}

    def read(self, rows: slice, frames: slice, padding: Tensor | None) -> Chunk:
        u, dt, B, C = (
            read(x, rows, frames, padding, self.dtype)
            for x in (self.direction.u, self.direction.dt, self.direction.B, self.direction.C)
        )
        dt = dt + self.dt_bias
        delta = softplus(dt)
        if padding is not None:
            delta.masked_fill_(padding[frames], 0)
        return Chunk(u, dt, delta, delta * u, B, C)

    def states(self, chunk: Chunk, start: Tensor | None) -> Scratch:
        """Decays and states of a chunk that begins with the state `start`, (r, n, c), or None for zero."""
        scratch = self._views(*chunk.u.shape[:2])
        if start is None:
            scratch.entering.zero_()
        else:
            scratch.entering.copy_(start)
        torch.mul(chunk.delta.unsqueeze(2), self.A_log2, out=scratch.decay).exp2_()
        torch.mul(chunk.step.unsqueeze(2), chunk.B.unsqueeze(3), out=scratch.after)
        for h, decay, before in scratch.steps:
            h.addcmul_(decay, before)
        return scratch

    def starts(self, rows: slice, padding: Tensor | None, state: Tensor | None) -> list[Tensor | None]:
        """The state, (r, n, c) or None for zero, at the start of each chunk; `state` is that of the first."""
        starts = [state]
        for frames in self.chunks[:-1]:
            starts.append(self.states(self.read(rows, frames, padding), starts[-1]).leaving.clone())
        return starts

    def _views(self, frames: int, rows: int) -> Scratch:
        if (frames, rows) not in self._scratch:
            shape = (frames, rows, *self.A.shape)
            self._scratch[frames, rows] = Scratch(self._buffers, shape, self.direction.reverse)
        return self._scratch[frames, rows]


class Gradients:
    """The gradients of one direction, filled chunk by chunk, from the last chunk that its sweep visits to the first."""

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
    ) -> Tensor:
        """One chunk of one block.

        Args:
            start: (r, n, c), the state that the chunk begins with, or None for zero.
            grad_y: (t, r, c), of this direction's output.
            grad_state: (r, n, c), of the state that the chunk ends with, or None for zero.
        Returns:
            (r, n, c), of the state that the chunk begins with.
        """
        chunk = self.sweep.read(rows, frames, padding)
        scratch = self.sweep.states(chunk, start)
        decay, grads = scratch.decay, scratch.grads
        here = rows, frames
        _put(self.C, here, torch.mul(scratch.after, grad_y.unsqueeze(2), out=grads).sum(3))
        # The gradient of a state comes from its own output and, through the decay, from the next state.
        torch.mul(grad_y.unsqueeze(2), chunk.C.unsqueeze(3), out=grads)
        if grad_state is not None:
            grads[scratch.last].add_(grad_state)
        for grad, decay_after, grad_after in scratch.steps_back:
            grad.addcmul_(decay_after, grad_after)
        grad_start = decay[scratch.first] * grads[scratch.first]

        # This is the last use of the states; their buffer is reused below.
        exponent = decay.mul_(scratch.before)
        _put(self.B, here, torch.mul(grads, chunk.step.unsqueeze(2), out=scratch.after).sum(3))
        grad_step = weigh_states(chunk.B, grads)
        # The gradient of delta A: its sum over n goes to delta, its sum over rows and frames to A.
        exponent.mul_(grads)
        grad_delta = torch.mul(exponent, self.sweep.A, out=grads).sum(2)
        self.A += exponent.mul_(chunk.delta.unsqueeze(2)).sum((0, 1))
        grad_dt = grad_delta.addcmul_(grad_step, chunk.u).mul_(torch.sigmoid(chunk.dt))
        if padding is not None:
            grad_dt.masked_fill_(padding[frames], 0)
        _put(self.dt, here, grad_dt)
        _put(self.u, here, grad_step.mul_(chunk.delta).addcmul_(grad_y, self.sweep.skip))
        self.skip += (grad_y * chunk.u).sum((0, 1))
        self.dt_bias += grad_dt.sum((0, 1))
        return grad_start

    def finish(self) -> Direction:
        direction = self.sweep.direction
        A = self.A.mT.to(direction.A.dtype).contiguous()
        skip, dt_bias = self.skip.to(direction.skip.dtype), self.dt_bias.to(direction.dt_bias.dtype)
        return Direction(self.u, self.dt, A, self.B, self.C, skip, dt_bias)


def read(x: Tensor, rows: slice, frames: slice, padding: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(rows, frames, ...) -> (t, r, ...), zero where `padding`, (all frames, r, 1), is set."""
    x = x[rows, frames].transpose(0, 1).to(dtype)
    # Filling and not multiplying: padded frames may be NaN.
    return x if padding is None else x.masked_fill(padding[frames], 0)


def weigh_states(weights: Tensor, x: Tensor) -> Tensor:
    """The sum over n of weights[t r n] x[t r n c]: (t, r, c)."""
    frames, rows, state, channels = x.shape
    weights = weights.reshape(frames * rows, 1, state)
    return torch.bmm(weights, x.view(frames * rows, state, channels)).view(frames, rows, channels)


def _put(target: Tensor, here: tuple[slice, slice], value: Tensor) -> None:
    target[here] = value.transpose(0, 1)


def _view(buffer: Tensor, shape: Sequence[int]) -> Tensor:
    return buffer[: math.prod(shape)].view(shape)
