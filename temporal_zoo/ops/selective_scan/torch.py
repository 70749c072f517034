"""The selective scan in plain torch, in blocks of rows and chunks of frames: any device, any size.

Tensors of size rows x frames x channels x state exist for one block and one chunk at a time, in scratch memory that
fits in a CPU's cache.  `backward` recomputes decays and states.  It also needs the inputs and the sum before the gate;
with several chunks, one more sweep over a block recomputes the states between them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import silu

from temporal_zoo.ops._lengths import padding
from temporal_zoo.ops.selective_scan import Direction
from temporal_zoo.ops.selective_scan._operator import Filled, scan, state_dtype
from temporal_zoo.ops.selective_scan._sweep import Gradients, Sweep, read, weigh_states

NEEDS = None
CONFIRMED = "torch"
run = functools.partial(scan, "torch")

# Elements of one scratch buffer: few enough for the cache of a CPU core, or enough to fill a GPU.
_CACHED, _FILLING = 2**19, 2**24


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def keeps(directions: Sequence[Direction], gate: Tensor | None) -> list[Tensor]:
    """The sum before the gate, if there is one."""
    u = directions[0].u
    return [] if gate is None else [u.new_empty(u.shape)]


def forward(directions, gate, lengths, initial, *, return_final, keep):
    """See `_operator` for what a backend takes and returns."""
    u = directions[0].u
    y = u.new_empty(u.shape)
    finals = [u.new_empty(u.shape[0], *each.A.shape, dtype=state_dtype(u)) for each in directions if return_final]
    kept = keeps(directions, gate) if keep else []
    sweeps = _sweeps(directions, num_buffers=2)
    for rows, padded, total in _blocks(directions, lengths):
        total.zero_()
        for index, sweep in enumerate(sweeps):
            state = initial[index][rows].mT if initial else None
            for frames in sweep.chunks:
                chunk = sweep.read(rows, frames, padded)
                scratch = sweep.states(chunk, state)
                total[frames] += weigh_states(chunk.C, scratch.after).addcmul_(chunk.u, sweep.skip)
                state = scratch.leaving
            if return_final and state is not None:
                finals[index][rows] = state.mT
        if kept:
            kept[0][rows] = total.transpose(0, 1)
        if gate is not None:
            for frames in sweeps[0].chunks:
                total[frames] *= silu(read(gate, rows, frames, padded, total.dtype))
        y[rows] = total.transpose(0, 1)
    return y, finals, kept


def backward(grad_y, grad_finals, directions, gate, lengths, initial, kept):
    """See `_operator` for what a backend takes and returns."""
    gradients = [Gradients(sweep) for sweep in _sweeps(directions, num_buffers=3)]
    grad_gate = None if gate is None else gate.new_empty(gate.shape)
    grad_initial = [start.new_empty(start.shape) for start in initial]
    for rows, padded, grad_sum in _blocks(directions, lengths):
        for frames in gradients[0].sweep.chunks:
            grad_sum[frames] = read(grad_y, rows, frames, padded, grad_sum.dtype)
            if gate is not None and grad_gate is not None:
                z, total = (read(x, rows, frames, padded, grad_sum.dtype) for x in (gate, kept[0]))
                sigmoid = torch.sigmoid(z)
                slope = (1 - sigmoid).mul_(z).add_(1).mul_(sigmoid)
                grad_gate[rows, frames] = slope.mul_(total).mul_(grad_sum[frames]).transpose(0, 1)
                grad_sum[frames] *= sigmoid.mul_(z)
        for index, each in enumerate(gradients):
            grad_state = grad_finals[index][rows].mT if grad_finals else None
            starts = each.sweep.starts(rows, padded, initial[index][rows].mT if initial else None)
            for frames, start in zip(each.sweep.chunks[::-1], starts[::-1], strict=True):
                grad_state = each.add(rows, frames, padded, start, grad_sum[frames], grad_state)
            if initial and grad_state is not None:
                grad_initial[index][rows] = grad_state.mT
    return [each.finish() for each in gradients], grad_gate, grad_initial


def _chunk_size(directions: Sequence[Filled]) -> int:
    """Frames per chunk: as many as states, so that the states between chunks are not larger than u."""
    return min(64, max(16, *(each.A.shape[1] for each in directions)))


def _block_size(directions: Sequence[Filled]) -> int:
    """Rows per block."""
    u = directions[0].u
    budget = _CACHED if u.device.type == "cpu" else _FILLING
    each_row = min(u.shape[1], _chunk_size(directions)) * max(each.A.numel() for each in directions)
    return max(1, min(u.shape[0], budget // max(1, each_row)))


def _sweeps(directions: Sequence[Filled], *, num_buffers: int) -> list[Sweep]:
    u = directions[0].u
    chunk_size = _chunk_size(directions)
    frames = min(u.shape[1], chunk_size) + 1
    size = frames * _block_size(directions) * max(each.A.numel() for each in directions)
    buffers = [u.new_empty(size, dtype=state_dtype(u)) for _ in range(num_buffers)]
    return [Sweep(each, chunk_size, buffers) for each in directions]


def _blocks(directions: Sequence[Filled], lengths: Tensor | None) -> Iterator[tuple[slice, Tensor | None, Tensor]]:
    """Per block: its rows, a mask of padded frames (frames, r, 1), and scratch for all frames (frames, r, channels)."""
    u = directions[0].u
    num_rows, num_frames, channels = u.shape
    size = _block_size(directions)
    buffer = u.new_empty(num_frames, size, channels, dtype=state_dtype(u))
    for start in range(0, num_rows, size):
        rows = slice(start, min(num_rows, start + size))
        padded = None if lengths is None else padding(num_frames, lengths[rows]).mT.unsqueeze(-1)
        yield rows, padded, buffer[:, : rows.stop - rows.start]
