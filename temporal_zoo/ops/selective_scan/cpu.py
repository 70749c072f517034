"""The selective scan in C++ on the CPU (`_cpu.cpp`), compiled on first use.

Sequential over frames, parallel over channels.  Backward recomputes decays and states, chunk by chunk, from the states
that forward stored between chunks.  Up to 256 frames a training step stores only the inputs; beyond, also one state per
256 frames and direction.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from temporal_zoo.ops import _native
from temporal_zoo.ops.selective_scan import Direction
from temporal_zoo.ops.selective_scan._operator import Filled, scan

NEEDS = None
CONFIRMED = "tests"
run = functools.partial(scan, "cpu")

_SOURCE = Path(__file__).with_name("_cpu.cpp")
_MOST_STATES = 64
# Chunks of 64 frames take 3 % less time at 256 frames, but store states where these store none.
_FRAMES_PER_CHUNK = 256
_PARAMETERS = ("A", "skip", "dt_bias")


@torch.compiler.assume_constant_result
def _absent() -> str | None:
    # No argument: before torch 2.13, torch.compile does not accept a path as a constant.
    return _native.reason(_SOURCE)


def refuses(directions: Sequence[Direction], gate: Tensor | None = None, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    u = directions[0].u
    if u.device.type != "cpu":
        return [f"runs on the CPU only; u is on {u.device}"]
    if u.dtype == torch.float64:
        return ["computes in float32; u is float64"]
    if (state := max(each.A.shape[1] for each in directions)) > _MOST_STATES:
        return [f"takes at most {_MOST_STATES} states; A has {state}"]
    absent = _absent()
    return [] if absent is None else [absent]


def keeps(directions: Sequence[Direction], gate: Tensor | None) -> list[Tensor]:
    """Per direction the states between chunks; channels are padded to whole vectors, states to multiples of four."""
    u = directions[0].u
    rows, frames, channels = u.shape
    between = (frames - 1) // _FRAMES_PER_CHUNK
    sizes = [_whole(channels, 16) * _whole(each.A.shape[1], 4) for each in directions]
    return [u.new_empty(rows, between, size, dtype=torch.float32) for size in sizes] if between else []


def forward(directions, gate, lengths, initial, *, return_final, keep):
    """See `_operator` for what a backend takes and returns."""
    u = directions[0].u
    y = _native.empty(*u.shape)
    finals = [_native.empty(u.shape[0], *each.A.shape) for each in directions] if return_final else []
    kept = keeps(directions, gate) if keep else []
    extras = {"initial": initial, "final": finals, "checkpoints": kept}
    _call("selective_scan_forward", directions, extras, gate=gate, lengths=lengths, y=y)
    return y.to(u.dtype), finals, kept


def backward(grad_y, grad_finals, directions, gate, lengths, initial, kept):
    """See `_operator` for what a backend takes and returns."""
    u = directions[0].u
    groups = len(_native.groups(u.shape[0]))
    make = _native.empty if u.numel() else torch.zeros  # without rows or channels no function is called
    grad_gate = None if gate is None else _native.empty(*gate.shape)
    grad_initial = [_native.empty(*start.shape) for start in initial]
    extras = {"initial": initial, "checkpoints": kept, "grad_final": grad_finals, "grad_initial": grad_initial}
    for name in _INPUTS:
        # One partial sum per group of rows for the parameters, so that totals do not depend on the number of threads.
        partial = (groups,) if name in _PARAMETERS else ()
        extras[f"grad_{name}"] = [make(*partial, *getattr(each, name).shape) for each in directions]
    _call("selective_scan_backward", directions, extras, gate=gate, lengths=lengths, grad_y=grad_y, grad_gate=grad_gate)
    grads = []
    for index, each in enumerate(directions):
        by_name = {name: extras[f"grad_{name}"][index] for name in _INPUTS}
        by_name |= {name: by_name[name].sum(0, dtype=torch.float64) for name in _PARAMETERS}
        typed = {name: grad.to(getattr(each, name).dtype) for name, grad in by_name.items()}
        grads.append(Direction(**typed, reverse=each.reverse))
    return (
        grads,
        None if gate is None or grad_gate is None else grad_gate.to(gate.dtype),
        [grad.to(start.dtype) for grad, start in zip(grad_initial, initial, strict=True)],
    )


# The structs below mirror those of `_cpu.cpp`.
_INPUTS = ("u", "dt", "A", "B", "C", "skip", "dt_bias")


class _Sweep(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("state", "reverse")]
    _fields_ += [(name, ctypes.c_void_p) for name in _INPUTS]
    _fields_ += [(name, ctypes.c_void_p) for name in ("initial", "final", "checkpoints", "grad_final", "grad_initial")]
    _fields_ += [(f"grad_{name}", ctypes.c_void_p) for name in _INPUTS]


class _Problem(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("rows", "frames", "channels", "num_sweeps")]
    _fields_ += [(name, ctypes.c_int64) for name in ("rows_per_group", "frames_per_chunk")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("sweeps", "lengths", "gate", "y", "grad_y", "grad_gate")]


_native.mirror(_SOURCE, Problem=_Problem, Direction=_Sweep)


def _call(function: str, directions: Sequence[Filled], extras: dict[str, Sequence[Tensor]], **tensors) -> None:
    """Calls the C function for every group of rows; `extras`: field -> one tensor per direction, or none."""
    u = directions[0].u
    if not u.numel():
        return
    address = _native.Addresses()
    sweeps = (_Sweep * len(directions))()
    for index, (sweep, each) in enumerate(zip(sweeps, directions, strict=True)):
        sweep.state, sweep.reverse = each.A.shape[1], each.reverse
        for name in _INPUTS:
            setattr(sweep, name, address(getattr(each, name)))
        for name, values in extras.items():
            setattr(sweep, name, address(values[index]) if values else None)
    groups = _native.groups(u.shape[0])
    problem = _Problem(
        *u.shape,
        len(sweeps),
        groups.step,
        _FRAMES_PER_CHUNK,
        ctypes.addressof(sweeps),
        **{name: address(tensor) for name, tensor in tensors.items()},
    )
    _native.run(_SOURCE, function, problem, len(groups))


def _whole(count: int, unit: int) -> int:
    return -(-count // unit) * unit
