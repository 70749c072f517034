"""The custom operator `temporal_zoo::diagonal_ssm`, which runs all backends except the reference.

A backend is a module of this folder.  Its `run` is `functools.partial(_operator.run, "name")`, and it defines

    forward(u, a, c, skips, initials, lengths, reverse, with_final) -> [y, *finals]
    backward(grads, u, a, c, skips, initials, lengths, reverse, with_final)
        -> [du, *da, *dc, *dskips, *dinitials]

with u (rows, frames, channels); `a`, `c` lists of complex (channels, modes) and `reverse` a list of bool, one per
direction; `skips` empty or the one (channels,); `initials` empty or one complex (rows, channels, modes) per direction;
`lengths` (rows,) int64 or None; finals only `with_final`.  `grads` are those of [y, *finals].  Tensors are those of the
caller, in any dtype and with any strides.  Padded frames may hold NaN (also in `grads`), and the number of rows or
frames may be zero.  Results are new tensors: y in the dtype of u, contiguous, zero at padded frames; finals in the
complex dtype of `reference.precision`; every gradient in the shape and dtype of its tensor, contiguous; a complex
gradient is dL/dRe + i dL/dIm.  Autograd and autocast are off.  A backend stores nothing between forward and backward:
backward gets the inputs, so a training step stores only these.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from temporal_zoo.ops._register import backend_module, register
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


def _compute(
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
    return _backend(backend).forward(u, a, c, skips, initials, lengths, reverse, with_final)


def _gradients(
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
    return _backend(backend).backward(grads, u, a, c, skips, initials, lengths, reverse, with_final)


def _fake(u, a, c, skips, initials, lengths, reverse, with_final, backend):
    finals = [u.new_empty(u.shape[0], *modes.shape, dtype=precision(u)[1]) for modes in a] if with_final else []
    return [u.new_empty(u.shape), *finals]


_backend = partial(backend_module, __package__)
_forward, _ = register(
    _compute,
    _gradients,
    fake=_fake,
    outputs=("results",),
    gradients={"grads": "results"},
    differentiable=("u", "a", "c", "skips", "initials"),
)
