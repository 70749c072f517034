"""Diagonal state space models in C++ on the CPU, compiled on first use; `_cpu.cpp` holds the computation.

Short rows are convolved with the taps of all directions at once; long rows, and rows with states, run the recurrence
with the modes in registers.  Beside its inputs a training step keeps nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from temporal_zoo.ops import _native
from temporal_zoo.ops.diagonal_ssm import _kernel, _operator
from temporal_zoo.ops.diagonal_ssm.reference import precision

NEEDS = None
FRAMES_PER_MODE = 12

run = partial(_operator.run, "cpu")

_SOURCE = Path(__file__).with_name("_cpu.cpp")


def refuses(u, directions, skip=None, *, lengths=None, initial=None, return_final=False) -> list[str]:
    if u.device.type != "cpu":
        return [f"runs on the CPU only; u is on {u.device}"]
    if u.dtype == torch.float64:
        return ["computes in float32; u is float64"]
    absent = _native.reason(_SOURCE)
    return [] if absent is None else [absent]


def forward(u, a, c, skips, initials, lengths, reverse, with_final) -> list[Tensor]:
    y = _native.empty(*u.shape)
    if _convolves(u, a, initials, with_final):
        both = _two_sided(_tables(u, a), c, skips, reverse)
        _call("diagonal_ssm_convolve", u, lengths, reverse, y=y, taps=both[:, _lags(u, reverse)].mT)
        return [y.to(u.dtype)]
    finals = [torch.empty(u.shape[0], *each.shape, dtype=torch.complex64) for each in a] if with_final else []
    by_direction = {"a": a, "c": c, "initial": initials, "final": finals}
    _call("diagonal_ssm_recur", u, lengths, reverse, by_direction, y=y, skip=_only(skips))
    return [y.to(u.dtype), *(final.to(precision(u)[1]) for final in finals)]


def backward(grads, u, a, c, skips, initials, lengths, reverse, with_final) -> list[Tensor]:
    grad_y, *grad_finals = grads
    du = _native.empty(*u.shape)
    slopes = {"grad_y": grad_y, "grad_u": du}
    # One partial sum per group of rows for the parameters, so that totals do not depend on the number of threads.
    groups = len(_native.groups(u.shape[0]))
    dinitials = [torch.empty(state.shape, dtype=torch.complex64) for state in initials]
    if _convolves(u, a, initials, with_final):
        tables, lags = _tables(u, a), _lags(u, reverse)
        both = _two_sided(tables, c, skips, reverse)
        dtaps = _native.empty(groups, both[:, lags].shape[1], both.shape[0])
        taps = {"taps": both[:, lags].mT, "grad_taps": dtaps}
        _call("diagonal_ssm_convolve_backward", u, lengths, reverse, **slopes, **taps)
        dboth = torch.zeros_like(both)
        dboth[:, lags] = dtaps.sum(0, dtype=dboth.dtype).mT
        da, dc = _kernel.through_two_sided(dboth, tables, a, c, reverse)
        dskips = [dboth[:, u.shape[1] - 1] for _ in skips]
    else:
        das, dcs = ([torch.empty(groups, *each.shape, dtype=torch.complex64) for each in a] for _ in range(2))
        partial_skips = [_native.empty(groups, u.shape[2]) for _ in skips]
        by_direction = {"a": a, "c": c, "initial": initials, "grad_final": grad_finals}
        by_direction |= {"grad_initial": dinitials, "grad_a": das, "grad_c": dcs}
        parameters = {"skip": _only(skips), "grad_skip": _only(partial_skips)}
        _call("diagonal_ssm_recur_backward", u, lengths, reverse, by_direction, **slopes, **parameters)
        da, dc = ([each.sum(0, dtype=torch.complex128) for each in partials] for partials in (das, dcs))
        dskips = [each.sum(0, dtype=torch.float64) for each in partial_skips]
    likes = (u, *a, *c, *skips, *initials)
    return [grad.to(like.dtype) for grad, like in zip([du, *da, *dc, *dskips, *dinitials], likes, strict=True)]


def _convolves(u: Tensor, a: Sequence[Tensor], initials: Sequence[Tensor], with_final: bool) -> bool:
    frames, most = u.shape[1] * len(a), FRAMES_PER_MODE * sum(each.shape[1] for each in a)
    return not initials and not with_final and 0 < frames <= most


def _tables(u: Tensor, a: Sequence[Tensor]) -> list[Tensor]:
    return [_kernel.powers(factor, u.shape[1]) for factor in a]


def _two_sided(tables: Sequence[Tensor], c: Sequence[Tensor], skips: list[Tensor], reverse: list[bool]) -> Tensor:
    return _kernel.two_sided([_kernel.taps(*each) for each in zip(tables, c, strict=True)], reverse, skips)


def _lags(u: Tensor, reverse: Sequence[bool]) -> slice:
    """Where in the two-sided taps those are that some direction has."""
    last = u.shape[1] - 1
    return slice(0 if any(reverse) else last, last + 1 if all(reverse) else None)


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
    _fields_ += [(name, ctypes.c_int64) for name in ("ahead", "behind")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("taps", "grad_taps")]
    _fields_ += [("num_directions", ctypes.c_int64)]
    _fields_ += [(name, ctypes.c_void_p) for name in ("directions", "skip", "grad_skip")]


def _call(
    function: str,
    u: Tensor,
    lengths: Tensor | None,
    reverse: Sequence[bool],
    by_direction: Mapping[str, Sequence[Tensor]] | None = None,
    **tensors: Tensor | None,
) -> None:
    """Calls the C function for every group of rows; `by_direction` hold nothing or a tensor per direction, by field."""
    address = _native.Addresses()
    directions = (_Direction * len(reverse))()
    for place, direction in enumerate(directions if by_direction else ()):
        direction.modes, direction.reverse = by_direction["a"][place].shape[1], reverse[place]
        for name, values in by_direction.items():
            setattr(direction, name, address(_pairs(values[place])) if values else None)
    groups, last = _native.groups(u.shape[0]), u.shape[1] - 1
    problem = _Problem(
        *u.shape,
        groups.step,
        address(lengths),
        address(u),
        ahead=last * any(reverse),
        behind=last * (not all(reverse)),
        num_directions=len(reverse),
        directions=ctypes.addressof(directions),
        **{name: address(tensor) for name, tensor in tensors.items()},
    )
    _native.run(getattr(_native.library(_SOURCE), function), problem, len(groups))


def _pairs(states: Tensor) -> Tensor:
    """Complex numbers as pairs of float32: a view where they are complex64 and in order."""
    return torch.view_as_real(states.to(torch.complex64).resolve_conj())
