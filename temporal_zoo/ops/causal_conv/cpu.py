"""The convolution in C++ on the CPU (`_cpu.cpp`), compiled on first use."""

from __future__ import annotations

import ctypes
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from temporal_zoo.ops import _native
from temporal_zoo.ops.causal_conv import _operator

NEEDS = None
CONFIRMED = "tests"
run = partial(_operator.run, "cpu")

_SOURCE = Path(__file__).with_name("_cpu.cpp")


@torch.compiler.assume_constant_result
def _absent() -> str | None:
    # No argument: before torch 2.13, torch.compile does not accept a path as a constant.
    return _native.reason(_SOURCE)


def refuses(x: Tensor, *args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    if x.device.type != "cpu":
        return [f"runs on the CPU only, x is on {x.device.type}"]
    if x.dtype == torch.float64:
        return ["computes in float32, x is float64"]
    absent = _absent()
    return [] if absent is None else [absent]


def forward(x, weights, biases, initials, lengths, reverse, silu) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    ys = [_native.empty(*x.shape) for _ in weights]
    _call("causal_conv_forward", x, lengths, reverse, silu, weight=weights, bias=biases, initial=initials, y=ys)
    return [y.to(x.dtype) for y in ys]


def backward(dys, x, weights, biases, initials, lengths, reverse, silu) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    dx = _native.empty(*x.shape)
    # One partial sum per group of rows for the parameters, so that totals do not depend on the number of threads.
    groups = len(_native.groups(x.shape[0]))
    dweights, dbiases = ([torch.zeros(groups, *p.shape) for p in parameters] for parameters in (weights, biases))
    dinitials = [torch.zeros(start.shape) for start in initials]
    inputs = {"weight": weights, "bias": biases, "initial": initials, "grad_y": dys}
    grads = {"grad_weight": dweights, "grad_bias": dbiases, "grad_initial": dinitials}
    _call("causal_conv_backward", x, lengths, reverse, silu, dx, **inputs, **grads)
    totals = [partial.sum(0, dtype=torch.float64) for partial in (*dweights, *dbiases)]
    likes = [x, *weights, *biases, *initials]
    return [grad.to(like.dtype) for grad, like in zip([dx, *totals, *dinitials], likes, strict=True)]


# The structs below mirror those of `_cpu.cpp`.
class _Filter(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("width", "reverse")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("weight", "bias", "initial", "y")]
    _fields_ += [(f"grad_{name}", ctypes.c_void_p) for name in ("y", "weight", "bias", "initial")]


class _Problem(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64) for name in ("rows", "frames", "channels", "num_filters", "rows_per_group", "silu")
    ]
    _fields_ += [(name, ctypes.c_int64) for name in ("row_stride", "frame_stride")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("filters", "lengths", "x", "grad_x")]


_native.mirror(_SOURCE, Problem=_Problem, Filter=_Filter)


def _call(
    function: str,
    x: Tensor,
    lengths: Tensor | None,
    reverse: list[bool],
    silu: bool,
    grad_x: Tensor | None = None,
    **by_filter: list[Tensor],
) -> None:
    """Calls the C function for every group of rows; `by_filter`: field -> one tensor per filter, or none."""
    if not x.numel():
        return
    address = _native.Addresses()
    filters = (_Filter * len(reverse))()
    for index, filter in enumerate(filters):
        filter.width, filter.reverse = by_filter["weight"][index].shape[1], reverse[index]
        for name, tensors in by_filter.items():
            setattr(filter, name, address(tensors[index]) if tensors else None)
    # A slice of the channels, as x often is, is not copied.
    x = x.float() if x.stride(2) == 1 else x.float().contiguous()
    groups = _native.groups(x.shape[0])
    problem = _Problem(
        *x.shape,
        len(filters),
        groups.step,
        silu,
        *x.stride()[:2],
        ctypes.addressof(filters),
        address(lengths),
        address.strided(x),
        address(grad_x),
    )
    _native.run(_SOURCE, function, problem, len(groups))
