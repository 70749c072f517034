"""The custom operator `temporal_zoo::causal_conv`, which runs all backends except the reference.

A backend is a module of this folder.  Its `run` is `functools.partial(_operator.run, "name")`, and it defines

    forward(x, weights, biases, initials, lengths, reverse, silu) -> ys
    backward(dys, x, weights, biases, initials, lengths, reverse, silu) -> [dx, *dweights, *dbiases, *dinitials]

with x (rows, frames, channels); `weights` a list of (channels, width) and `reverse` a list of bool, one per filter;
`biases` and `initials` lists of the same length, or empty when no filter has any; `lengths` (rows,) int64 or None; `ys`
and `dys` lists of (rows, frames, channels), one per filter.  Tensors are those of the caller, in any float dtype and
with any strides.  Padded frames may hold NaN (also in `dys`), and the number of rows or frames may be zero.  Results
are new tensors: ys in the dtype of x, contiguous, zero at padded frames; every gradient in the shape and dtype of its
tensor, contiguous.  Autograd and autocast are off.  A backend stores nothing between forward and backward: backward
gets the inputs, so a training step stores only these.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from temporal_zoo.ops._register import backend_module, register
from temporal_zoo.ops.causal_conv import Filter
from temporal_zoo.ops.causal_conv.reference import final_inputs


def run(
    backend: str,
    x: Tensor,
    filters: Sequence[Filter],
    *,
    silu: bool = False,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
):
    """`causal_conv` by the named backend."""
    weights = [taps.weight for taps in filters]
    biases, initials = [], []
    if any(taps.bias is not None for taps in filters):
        zeros = [weight.new_zeros(weight.shape[0]) for weight in weights]
        biases = [zero if taps.bias is None else taps.bias for zero, taps in zip(zeros, filters, strict=True)]
    if initial is not None and any(start is not None for start in initial):
        shapes = [(x.shape[0], w.shape[1] - 1, x.shape[2]) for w in weights]
        initials = [x.new_zeros(s) if start is None else start for s, start in zip(shapes, initial, strict=True)]
    ys = tuple(_forward(x, weights, biases, initials, lengths, [taps.reverse for taps in filters], silu, backend))
    return (ys, final_inputs(x, filters, lengths, initial)) if return_final else ys


def _compute(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    initials: list[Tensor],
    lengths: Tensor | None,
    reverse: list[bool],
    silu: bool,
    backend: str,
) -> list[Tensor]:
    return _backend(backend).forward(x, weights, biases, initials, lengths, reverse, silu)


def _gradients(
    dys: list[Tensor],
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    initials: list[Tensor],
    lengths: Tensor | None,
    reverse: list[bool],
    silu: bool,
    backend: str,
) -> list[Tensor]:
    return _backend(backend).backward(dys, x, weights, biases, initials, lengths, reverse, silu)


def _fake(x, weights, biases, initials, lengths, reverse, silu, backend):
    return [x.new_empty(x.shape) for _ in weights]


_backend = partial(backend_module, __package__)
_forward, _ = register(
    _compute,
    _gradients,
    fake=_fake,
    outputs=("ys",),
    gradients={"dys": "ys"},
    differentiable=("x", "weights", "biases", "initials"),
)
