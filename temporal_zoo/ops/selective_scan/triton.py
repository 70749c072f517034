"""The selective scan in Triton: one launch forward and one backward; kernels in `_triton_kernels`.

The kernels are tested in Triton's interpreter and compiled for sm_80 and sm_90; none has run on hardware yet.

It is written for many short rows: sequential over frames, channels on the lanes of one warp, states in registers, and
without atomics, so that results do not depend on the order of programs.  Backward recomputes the states in registers: a
training step stores only the inputs.  With `TRITON_INTERPRET=1`, set before the first call, it takes CPU tensors and is
slow.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from temporal_zoo.ops import _triton
from temporal_zoo.ops.selective_scan import Direction
from temporal_zoo.ops.selective_scan._operator import Filled, scan

NEEDS = "triton"
CONFIRMED = None
run = functools.partial(scan, "triton")

_MOST_STATES = 64


def refuses(directions: Sequence[Direction], gate: Tensor | None = None, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    reasons = _triton.refuses("u", directions[0].u)
    if (state := _most_states(directions)) > _MOST_STATES:
        reasons.append(f"takes at most {_MOST_STATES} states; A has {state}")
    return reasons


def keeps(directions: Sequence[Direction], gate: Tensor | None) -> list[Tensor]:
    """See `_operator`."""
    return []


def forward(directions, gate, lengths, initial, *, return_final, keep):
    """See `_operator` for what a backend takes and returns."""
    kernels = _kernels()
    u = directions[0].u
    rows, frames, channels = u.shape
    y = _triton.empty(u, lengths)
    finals = [u.new_empty(rows, each.A.shape[1], channels, dtype=torch.float32) for each in directions if return_final]
    sweeps = _sweeps(kernels, directions, initial, finals)
    block = _block(directions)
    arguments = sweeps, _triton.contiguous(gate), y, _triton.contiguous(lengths), frames, len(sweeps), channels
    programs = rows * _blocks(channels, block)
    _triton.launch(kernels.forward, programs, u.device, *arguments, BLOCK=block, num_warps=_warps(directions, 2))
    return y, [final.mT.contiguous() for final in finals], []


def backward(grad_y, grad_finals, directions, gate, lengths, initial, kept):
    """See `_operator` for what a backend takes and returns."""
    kernels = _kernels()
    u = directions[0].u
    rows, frames, channels = u.shape
    block = _block(directions)
    blocks = _blocks(channels, block)
    rows_per_program = max(1, -(-rows * blocks // _triton.MOST_PROGRAMS))
    groups = -(-rows // rows_per_program)
    sweeps = _sweeps(kernels, directions, initial, [])
    gradients = tuple(
        _gradients(kernels, each, lengths, groups, blocks)._replace(
            initial=torch.empty_like(sweeps[index].initial) if initial else None,
            final=_states_first(grad_finals[index]) if grad_finals else None,
        )
        for index, each in enumerate(directions)
    )
    grad_gate = None if gate is None else _triton.empty(gate, lengths)
    arguments = sweeps, gradients, _triton.contiguous(gate), grad_y.contiguous(), grad_gate, _triton.contiguous(lengths)
    sizes = rows, rows_per_program, frames, len(sweeps), channels
    constants = {"BLOCK": block, "CHUNK": kernels.CHUNK, "num_warps": _warps(directions, 4)}
    _triton.launch(kernels.backward, groups * blocks, u.device, *arguments, *sizes, **constants)
    return (
        [_total(direction, grads) for direction, grads in zip(directions, gradients, strict=True)],
        grad_gate,
        [grads.initial.mT.to(start.dtype).contiguous() for start, grads in zip(initial, gradients, strict=False)],
    )


def _kernels() -> ModuleType:
    # A function, because importing the kernels imports Triton.
    from temporal_zoo.ops.selective_scan import _triton_kernels

    return _triton_kernels


def _most_states(directions: Sequence[Direction]) -> int:
    return max(each.A.shape[1] for each in directions)


def _block(directions: Sequence[Filled]) -> int:
    """Channels per program: two per lane if a thread has registers for the states of both."""
    return 64 if _most_states(directions) <= 16 and directions[0].A.shape[0] > 32 else 32


def _warps(directions: Sequence[Filled], most: int) -> int:
    """Warps per program: more than one only if one has too few registers."""
    return 1 if _most_states(directions) <= 32 else most


def _blocks(channels: int, block: int) -> int:
    return -(-channels // block)


def _sweeps(kernels: ModuleType, directions: Sequence[Filled], initial: list[Tensor], finals: list[Tensor]) -> tuple:
    import triton
    from triton.language import constexpr

    return tuple(
        kernels.SweepArguments(
            *map(_triton.contiguous, (each.u, each.dt, _states_first(each.A), each.B, each.C, each.skip, each.dt_bias)),
            initial=_states_first(initial[index]) if initial else None,
            final=finals[index] if finals else None,
            state=constexpr(each.A.shape[1]),
            padded_state=constexpr(triton.next_power_of_2(each.A.shape[1])),
            reverse=constexpr(each.reverse),
        )
        for index, each in enumerate(directions)
    )


def _gradients(kernels: ModuleType, direction: Filled, lengths: Tensor | None, groups: int, blocks: int):
    u, dt, A = direction.u, direction.dt, direction.A
    rows, frames, channels = u.shape
    state = A.shape[1]
    grad_dt = _triton.empty(dt, lengths)

    def scratch(*shape: int) -> Tensor:
        return u.new_empty(shape, dtype=torch.float32)

    def by_block(x: Tensor) -> Tensor:
        partial = x.new_empty(1, *x.shape) if blocks == 1 else scratch(blocks, *x.shape)
        return partial if lengths is None else partial.zero_()

    return kernels.GradientArguments(
        u=_triton.empty(u, lengths),
        dt=grad_dt,
        A=scratch(groups, state, channels),
        B=by_block(direction.B),
        C=by_block(direction.C),
        skip=scratch(groups, channels),
        dt_bias=scratch(groups, channels),
        initial=None,
        final=None,
        rest=grad_dt if dt.dtype == torch.float32 else scratch(rows, frames, channels),
        ends=scratch(rows, (frames - 1) // kernels.CHUNK, state + 1, channels),
    )


def _total(direction: Filled, grads) -> Direction:
    """Adds up the partial sums."""
    B, C = (
        partial[0] if len(partial) == 1 else partial.sum(0).to(x.dtype)
        for x, partial in ((direction.B, grads.B), (direction.C, grads.C))
    )
    A = grads.A.sum(0).mT.to(direction.A.dtype).contiguous()
    skip, dt_bias = (getattr(grads, name).sum(0).to(getattr(direction, name).dtype) for name in ("skip", "dt_bias"))
    return Direction(grads.u, grads.dt, A, B, C, skip, dt_bias, direction.reverse)


def _states_first(x: Tensor) -> Tensor:
    """(..., channels, state) -> (..., state, channels), float32."""
    return x.mT.float().contiguous()
