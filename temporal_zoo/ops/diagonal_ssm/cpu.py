"""Diagonal state space models in C++ on the CPU (`_cpu.cpp`), compiled on first use.

Short rows are convolved with the taps of all directions at once; long rows, and rows with states, run the recurrence
with the modes in registers.  A training step stores only the inputs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from temporal_zoo.ops import _native
from temporal_zoo.ops.diagonal_ssm import _operator
from temporal_zoo.ops.diagonal_ssm.reference import precision

NEEDS = None
CONFIRMED = "tests"
# The convolution is faster up to this many frames, plus this many per mode of a direction.
# Measured forward and backward with AVX-512 (one thread of an AMD EPYC, Zen 5, 128 channels, 16,384 frames in all,
# medians of CPU time, interleaved): equal at about 74 frames with 2 modes, at 155 with 8 and below 512 with 32.
FRAMES, FRAMES_PER_MODE = 50, 13

run = partial(_operator.run, "cpu")

_SOURCE = Path(__file__).with_name("_cpu.cpp")


@torch.compiler.assume_constant_result
def _absent() -> str | None:
    # No argument: before torch 2.13, torch.compile does not accept a path as a constant.
    return _native.reason(_SOURCE)


def refuses(u, directions, skip=None, *, lengths=None, initial=None, return_final=False) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    if u.device.type != "cpu":
        return [f"runs on the CPU only; u is on {u.device}"]
    if u.dtype == torch.float64:
        return ["computes in float32; u is float64"]
    absent = _absent()
    return [] if absent is None else [absent]


def forward(u, a, c, skips, initials, lengths, reverse, with_final) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    y = _native.empty(*u.shape)
    call = _Call(u, lengths, reverse, {"a": a, "c": c}, y=y, skip=_only(skips))
    if _convolves(u, a, initials, with_final):
        call.set(taps=_native.empty(call.num_lags, u.shape[2]))
        call.per_block("diagonal_ssm_taps")
        call.per_group("diagonal_ssm_convolve")
        return [y.to(u.dtype)]
    finals = [torch.empty(u.shape[0], *each.shape, dtype=torch.complex64) for each in a] if with_final else []
    call.set_directions({"initial": initials, "final": finals})
    call.per_group("diagonal_ssm_recur")
    return [y.to(u.dtype), *(final.to(precision(u)[1]) for final in finals)]


def backward(grads, u, a, c, skips, initials, lengths, reverse, with_final) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    grad_y, *grad_finals = grads
    du = _native.empty(*u.shape)
    call = _Call(u, lengths, reverse, {"a": a, "c": c}, grad_y=grad_y, grad_u=du, skip=_only(skips))
    convolves = _convolves(u, a, initials, with_final)
    # One partial sum per group of rows for the parameters, so that totals do not depend on the number of threads; in a
    # convolution, the taps have these sums.
    partials = 1 if convolves else call.num_groups
    da, dc = ([torch.empty(partials, *each.shape, dtype=torch.complex64) for each in a] for _ in range(2))
    dskips = [_native.empty(partials, u.shape[2]) for _ in skips]
    dinitials = [torch.empty(state.shape, dtype=torch.complex64) for state in initials]
    call.set(grad_skip=_only(dskips))
    call.set_directions({"grad_a": da, "grad_c": dc})
    if convolves:
        call.set(taps=_native.empty(call.num_lags, u.shape[2]))
        call.set(grad_taps=_native.empty(call.num_groups, call.num_lags, u.shape[2]))
        call.per_block("diagonal_ssm_taps")
        call.per_group("diagonal_ssm_convolve_backward")
        call.per_block("diagonal_ssm_taps_backward")
    else:
        call.set_directions({"initial": initials, "grad_final": grad_finals, "grad_initial": dinitials})
        call.per_group("diagonal_ssm_recur_backward")
    parameters = [_total(each) for each in (*da, *dc, *dskips)]
    likes = (u, *a, *c, *skips, *initials)
    return [grad.to(like.dtype) for grad, like in zip([du, *parameters, *dinitials], likes, strict=True)]


def _convolves(u: Tensor, a: Sequence[Tensor], initials: Sequence[Tensor], with_final: bool) -> bool:
    most = FRAMES * len(a) + FRAMES_PER_MODE * sum(each.shape[1] for each in a)
    return not initials and not with_final and 0 < u.shape[1] * len(a) <= most


def _total(partials: Tensor) -> Tensor:
    """The sum of partial sums, in double precision."""
    if len(partials) == 1:
        return partials[0]
    return partials.sum(0, dtype=torch.promote_types(partials.dtype, torch.float64))


def _only(tensors: Sequence[Tensor]) -> Tensor | None:
    return tensors[0] if tensors else None


# The structs below mirror those of `_cpu.cpp`.
class _Direction(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("modes", "reverse")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("a", "c", "initial", "final", "grad_final", "grad_initial")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("grad_a", "grad_c")]


class _Problem(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("rows", "frames", "channels", "rows_per_group")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("lengths", "u", "y", "grad_y", "grad_u")]
    _fields_ += [("num_directions", ctypes.c_int64)]
    _fields_ += [(name, ctypes.c_void_p) for name in ("directions", "skip", "grad_skip")]
    _fields_ += [(name, ctypes.c_int64) for name in ("ahead", "behind", "num_groups")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("taps", "grad_taps")]


_native.mirror(_SOURCE, Problem=_Problem, Direction=_Direction)


class _Call:
    """A problem in C's layout, and the tensors that it points to; fields are those of the structs above."""

    def __init__(
        self,
        u: Tensor,
        lengths: Tensor | None,
        reverse: Sequence[bool],
        by_direction: Mapping[str, Sequence[Tensor]],
        **tensors: Tensor | None,
    ) -> None:
        groups, last = _native.groups(u.shape[0]), u.shape[1] - 1
        self._address = _native.Addresses()
        self._directions = (_Direction * len(reverse))()
        for direction, backwards, a in zip(self._directions, reverse, by_direction["a"], strict=True):
            direction.modes, direction.reverse = a.shape[1], backwards
        self._problem = _Problem(
            *u.shape,
            groups.step,
            num_directions=len(reverse),
            directions=ctypes.addressof(self._directions),
            ahead=last * any(reverse),
            behind=last * (not all(reverse)),
            num_groups=len(groups),
        )
        self.num_groups = len(groups)
        self.num_lags = self._problem.ahead + 1 + self._problem.behind
        self._num_blocks = -(-u.shape[2] // _native.library(_SOURCE).diagonal_ssm_lanes())
        self.set(u=u, lengths=lengths, **tensors)
        self.set_directions(by_direction)

    def set(self, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            setattr(self._problem, name, self._address(tensor))

    def set_directions(self, by_direction: Mapping[str, Sequence[Tensor]]) -> None:
        """`by_direction`: field -> one complex tensor per direction, or none."""
        for name, values in by_direction.items():
            for direction, value in zip(self._directions, values, strict=False):
                # As pairs of float32: a view if they are complex64 and contiguous.
                setattr(direction, name, self._address(torch.view_as_real(value.to(torch.complex64).resolve_conj())))

    def per_group(self, function: str) -> None:
        """Calls a C function for every group of rows."""
        _native.run(_SOURCE, function, self._problem, self.num_groups)

    def per_block(self, function: str) -> None:
        """Calls a C function for every block of channels; a block fills a vector register."""
        _native.run(_SOURCE, function, self._problem, self._num_blocks)
