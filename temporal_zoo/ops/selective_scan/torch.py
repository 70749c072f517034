"""The selective scan in blocks of rows and chunks of frames: any device, any size, no kernel of our own.

What has rows, frames, channels and state exists for one block and one chunk at a time, in scratch memory small enough
to stay in a CPU's cache.  `backward` computes decays and states again; beside the inputs it needs the sum before
the gate and, where there are several chunks, the states between them, which for up to 64 states are no larger than u.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import silu

from temporal_zoo.ops.selective_scan import Direction
from temporal_zoo.ops.selective_scan._operator import scan, state_dtype
from temporal_zoo.ops.selective_scan._sweep import Adjoint, Sweep, frames_first, over_state

NEEDS = None
run = functools.partial(scan, "torch")

# Elements of one scratch buffer: few enough for a core's cache, or enough to fill an accelerator.
_CACHED, _FILLING = 2**18, 2**24


def refuses(*args, **kwargs) -> list[str]:
    return []


def keeps(directions: Sequence[Direction], gate: Tensor | None) -> list[Tensor]:
    """The sum before the gate, if there is one, and per direction the states between chunks."""
    u = directions[0].u
    rows, frames, channels = u.shape
    kept = [] if gate is None else [u.new_empty(u.shape)]
    between = (frames - 1) // _chunk_size(directions)
    if between:
        kept += [u.new_empty(between, rows, each.A.shape[1], channels, dtype=state_dtype(u)) for each in directions]
    return kept


def forward(
    directions: Sequence[Direction],
    gate: Tensor | None,
    lengths: Tensor | None,
    initial: list[Tensor],
    *,
    return_final: bool,
    keep: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    u = directions[0].u
    dtype = state_dtype(u)
    y = u.new_empty(u.shape)
    finals = [u.new_empty(u.shape[0], *each.A.shape, dtype=dtype) for each in directions if return_final]
    kept = keeps(directions, gate) if keep else []
    sums, between = ([], kept) if gate is None else (kept[:1], kept[1:])
    sweeps = [Sweep(each, _chunk_size(directions), dtype) for each in directions]
    scratch = _scratch(directions, 2)
    for rows, padding in _blocks(directions, lengths):
        total = u.new_zeros(u.shape[1], rows.stop - rows.start, u.shape[2], dtype=dtype)
        for place, sweep in enumerate(sweeps):
            state = initial[place][rows].mT if initial else None
            for number, frames in enumerate(sweep.chunks):
                if number and between:
                    between[place][number - 1, rows] = state
                chunk = sweep.read(rows, frames, padding)
                _, after, _ = sweep.states(chunk, state, scratch)
                total[frames] += over_state(chunk.C, after).addcmul_(chunk.u, sweep.skip)
                state = sweep.leaving(after)
            if return_final:
                finals[place][rows] = state.mT
        if sums:
            sums[0][rows] = total.transpose(0, 1)
        if gate is not None:
            total *= silu(frames_first(gate, rows, padding, dtype))
        y[rows] = total.transpose(0, 1)
    return y, finals, kept


def backward(
    grad_y: Tensor,
    grad_finals: list[Tensor],
    directions: Sequence[Direction],
    gate: Tensor | None,
    lengths: Tensor | None,
    initial: list[Tensor],
    kept: list[Tensor],
) -> tuple[list[Direction], Tensor | None, list[Tensor]]:
    dtype = state_dtype(directions[0].u)
    between = kept if gate is None else kept[1:]
    adjoints = [Adjoint(Sweep(each, _chunk_size(directions), dtype)) for each in directions]
    grad_gate = None if gate is None else gate.new_empty(gate.shape)
    grad_initial = [start.new_empty(start.shape) for start in initial]
    scratch = _scratch(directions, 3)
    for rows, padding in _blocks(directions, lengths):
        grad_sum = frames_first(grad_y, rows, padding, dtype)
        if gate is not None:
            z, total = (frames_first(x, rows, padding, dtype) for x in (gate, kept[0]))
            sigmoid = torch.sigmoid(z)
            slope = (1 - sigmoid).mul_(z).add_(1).mul_(sigmoid)
            grad_gate[rows] = slope.mul_(total).mul_(grad_sum).transpose(0, 1)
            grad_sum = sigmoid.mul_(z).mul_(grad_sum)
        grad_sum = grad_sum.contiguous()
        for place, adjoint in enumerate(adjoints):
            grad_state = grad_finals[place][rows].mT if grad_finals else None
            for number, frames in reversed(list(enumerate(adjoint.sweep.chunks))):
                if number:
                    start = between[place][number - 1, rows]
                else:
                    start = initial[place][rows].mT if initial else None
                grad_state = adjoint.add(rows, frames, padding, start, grad_sum[frames], grad_state, scratch)
            if initial:
                grad_initial[place][rows] = grad_state.mT
    return [adjoint.gradients() for adjoint in adjoints], grad_gate, grad_initial


def _chunk_size(directions: Sequence[Direction]) -> int:
    """Frames per chunk: as many as there are states, so that the states between chunks are no larger than u."""
    return min(64, max(16, *(each.A.shape[1] for each in directions)))


def _rows_and_scratch(directions: Sequence[Direction]) -> tuple[int, int]:
    """Rows per block, and the elements of a scratch buffer that holds a chunk of them and one state more."""
    u = directions[0].u
    frames = min(u.shape[1], _chunk_size(directions))
    each_frame = max(each.A.numel() for each in directions)
    budget = _CACHED if u.device.type == "cpu" else _FILLING
    rows = max(1, min(u.shape[0], budget // (frames * each_frame)))
    return rows, (frames + 1) * rows * each_frame


def _scratch(directions: Sequence[Direction], buffers: int) -> list[Tensor]:
    u = directions[0].u
    _, size = _rows_and_scratch(directions)
    return [u.new_empty(size, dtype=state_dtype(u)) for _ in range(buffers)]


def _blocks(directions: Sequence[Direction], lengths: Tensor | None) -> Iterator[tuple[slice, Tensor | None]]:
    """Blocks of rows, and (frames, r, 1) where each is padded."""
    u = directions[0].u
    step, _ = _rows_and_scratch(directions)
    frames = torch.arange(u.shape[1], device=u.device)[:, None]
    for start in range(0, u.shape[0], step):
        rows = slice(start, min(u.shape[0], start + step))
        yield rows, None if lengths is None else (frames >= lengths[rows]).unsqueeze(-1)
