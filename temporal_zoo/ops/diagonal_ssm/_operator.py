"""The custom operator `temporal_zoo::diagonal_ssm`, behind which every backend but the reference runs.

A backend is a module of this folder.  Its `run` is `functools.partial(_operator.run, "name")`, and it defines

    forward(u, a, c, skips, initials, lengths, reverse, with_final) -> [y, *finals]
    backward(grads, u, a, c, skips, initials, lengths, reverse, with_final)
        -> [du, *da, *dc, *dskips, *dinitials]

with u (rows, frames, channels); `a`, `c` lists of complex (channels, modes) and `reverse` a list of bool, one per
direction; `skips` empty or the one (channels,); `initials` empty or one complex (rows, channels, modes) per direction;
`lengths` (rows,) int64 or None; finals only `with_final`.  `grads` are those of [y, *finals].  Tensors come as the
caller has them, in any dtype and any strides, frames behind `lengths` may hold NaN (also in `grads`), and rows or
frames may be none.  Results are new tensors: y in the dtype of u, contiguous, zero at padded frames; finals in the
complex dtype of `reference.precision`; every gradient in the shape and dtype of its tensor, contiguous; a complex
gradient is dL/dRe + i dL/dIm.  Gradient tracking and autocast are off.  A backend keeps nothing from forward to
backward: what backward sees are the inputs, so that they are all that a training step stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from temporal_zoo.ops._derivatives import batch_by_loop, check_gradients, refuse_twice
from temporal_zoo.ops.diagonal_ssm import Modes
from temporal_zoo.ops.diagonal_ssm.reference import precision


def run(
    backend: str,
    u: Tensor,
    directions: Sequence[Modes],
    skip: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
):
    """`diagonal_ssm` by the named backend."""
    initials = []
    if initial is not None and any(state is not None for state in initial):
        zeros = [u.new_zeros(u.shape[0], *modes.a.shape, dtype=precision(u)[1]) for modes in directions]
        initials = [zero if state is None else state for zero, state in zip(zeros, initial, strict=True)]
    y, *finals = _forward(
        u,
        [modes.a for modes in directions],
        [modes.c for modes in directions],
        [] if skip is None else [skip],
        initials,
        lengths,
        [modes.reverse for modes in directions],
        return_final,
        backend,
    )
    return (y, tuple(finals)) if return_final else y


@torch.library.custom_op("temporal_zoo::diagonal_ssm", mutates_args=())
def _forward(
    u: Tensor,
    a: list[Tensor],
    c: list[Tensor],
    skips: list[Tensor],
    initials: list[Tensor],
    lengths: Tensor | None,
    reverse: list[bool],
    with_final: bool,
    backend: str,
) -> list[Tensor]:
    with torch.autocast(u.device.type, enabled=False):
        return _backend(backend).forward(u, a, c, skips, initials, lengths, reverse, with_final)


@torch.library.custom_op("temporal_zoo::diagonal_ssm_backward", mutates_args=())
def _backward(
    grads: list[Tensor],
    u: Tensor,
    a: list[Tensor],
    c: list[Tensor],
    skips: list[Tensor],
    initials: list[Tensor],
    lengths: Tensor | None,
    reverse: list[bool],
    with_final: bool,
    backend: str,
) -> list[Tensor]:
    with torch.autocast(u.device.type, enabled=False):
        return _backend(backend).backward(grads, u, a, c, skips, initials, lengths, reverse, with_final)


def _backend(name: str):
    return import_module(f"{__package__}.{name}")


@_forward.register_fake
def _(u, a, c, skips, initials, lengths, reverse, with_final, backend):
    finals = [u.new_empty(u.shape[0], *modes.shape, dtype=precision(u)[1]) for modes in a] if with_final else []
    return [u.new_empty(u.shape), *finals]


@_backward.register_fake
def _(grads, u, a, c, skips, initials, lengths, reverse, with_final, backend):
    return [tensor.new_empty(tensor.shape) for tensor in (u, *a, *c, *skips, *initials)]


def _keep(ctx, inputs, output) -> None:
    u, a, c, skips, initials, lengths, ctx.reverse, ctx.with_final, ctx.backend = inputs
    ctx.sizes = [len(a), len(c), len(skips), len(initials)]
    ctx.save_for_backward(u, lengths, *a, *c, *skips, *initials)


def _differentiate(ctx, grads):
    check_gradients("diagonal_ssm", grads)
    u, lengths, *rest = ctx.saved_tensors
    lists = _split(rest, ctx.sizes)
    du, *found = _backward(list(grads), u, *lists, lengths, ctx.reverse, ctx.with_final, ctx.backend)
    return du, *_split(found, ctx.sizes), None, None, None, None


def _split(tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    rest = iter(tensors)
    return [[next(rest) for _ in range(size)] for size in sizes]


_forward.register_autograd(_differentiate, setup_context=_keep)
_backward.register_autograd(refuse_twice("diagonal_ssm", "diagonal_ssm"))
batch_by_loop(_backward)
