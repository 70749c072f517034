"""The custom operator `temporal_zoo::selective_scan`, which runs all backends except those in `PLAIN`.

A backend is a module of this folder with `NEEDS`, `refuses`, `run = functools.partial(scan, "its name")`, and

    keeps(directions, gate) -> list of empty tensors
        like those that `forward` stores for `backward` besides its inputs, rows first (`selective_block` runs some rows
        at a time); none has the size rows x frames x channels x state.
    forward(directions, gate, lengths, initial, *, return_final, keep) -> (y, finals, kept)
        y (rows, frames, channels) in the dtype of the first u; finals one (rows, channels, state) per direction in the
        dtype of the state, or [] without `return_final`; kept the tensors of `keeps`, filled, or [] without `keep`.
    backward(grad_y, grad_finals, directions, gate, lengths, initial, kept) -> (directions, gate, initial)
        the gradients, in the places, shapes and dtypes of the inputs.

A backend may assume: arguments are checked; autograd and autocast are off; `directions` is a list of `Filled`
(skip and dt_bias are tensors, zeros where the caller gave none); `initial` and `grad_finals` are [] or one tensor per
direction; dtypes and strides are the caller's.  Its results are contiguous and share no memory with the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from temporal_zoo.ops._register import backend_module, register
from temporal_zoo.ops.selective_scan import Direction

_TENSORS = tuple(field.name for field in fields(Direction) if field.name != "reverse")


@dataclass(frozen=True)
class Filled(Direction):
    """A direction as a backend gets it: zeros replace a missing skip or dt bias."""

    skip: Tensor
    dt_bias: Tensor


def scan(
    backend: str,
    directions: Sequence[Direction],
    gate: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
):
    """`selective_scan` by the named backend."""
    tensors = [_or_zeros(getattr(each, name), each.u) for each in directions for name in _TENSORS]
    starts = _all_or_none(initial or [], directions)
    differentiable = [*tensors, *starts] if gate is None else [*tensors, *starts, gate]
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in differentiable)
    reverse = [each.reverse for each in directions]
    y, finals, _ = _forward(backend, tensors, reverse, gate, lengths, starts, return_final, keep)
    return (y, tuple(finals)) if return_final else y


def state_dtype(u: Tensor) -> torch.dtype:
    """The dtype of the state: float32, or float64 for float64."""
    return torch.promote_types(u.dtype, torch.float32)


def _or_zeros(value: Tensor | None, u: Tensor) -> Tensor:
    return u.new_zeros(u.shape[-1], dtype=state_dtype(u)) if value is None else value


def _new_state(direction: Direction) -> Tensor:
    u = direction.u
    return u.new_zeros(u.shape[0], *direction.A.shape, dtype=state_dtype(u))


def _all_or_none(states: Sequence[Tensor | None], directions: Sequence[Direction]) -> list[Tensor]:
    if all(state is None for state in states):
        return []
    pairs = zip(states, directions, strict=True)
    return [_new_state(direction) if state is None else state for state, direction in pairs]


def _directions(tensors: list[Tensor], reverse: list[bool]) -> list[Filled]:
    size = len(_TENSORS)
    named = [dict(zip(_TENSORS, tensors[size * i : size * (i + 1)], strict=True)) for i in range(len(reverse))]
    return [Filled(**each, reverse=backwards) for each, backwards in zip(named, reverse, strict=True)]


def _compute(
    backend: str,
    tensors: list[Tensor],
    reverse: list[bool],
    gate: Tensor | None,
    lengths: Tensor | None,
    initial: list[Tensor],
    return_final: bool,
    keep: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    directions = _directions(tensors, reverse)
    return _backend(backend).forward(directions, gate, lengths, initial, return_final=return_final, keep=keep)


def _fake(backend, tensors, reverse, gate, lengths, initial, return_final, keep):
    directions = _directions(tensors, reverse)
    u = directions[0].u
    finals = [_new_state(each) for each in directions] if return_final else []
    return u.new_empty(u.shape), finals, _backend(backend).keeps(directions, gate) if keep else []


def _gradients(
    backend: str,
    grad_y: Tensor,
    grad_finals: list[Tensor],
    tensors: list[Tensor],
    reverse: list[bool],
    gate: Tensor | None,
    lengths: Tensor | None,
    initial: list[Tensor],
    kept: list[Tensor],
) -> list[Tensor]:
    directions = _directions(tensors, reverse)
    by_direction, grad_gate, grad_initial = _backend(backend).backward(
        grad_y, grad_finals, directions, gate, lengths, initial, kept
    )
    grads = [getattr(each, name) for each in by_direction for name in _TENSORS]
    return [*grads, *grad_initial] if gate is None else [*grads, *grad_initial, grad_gate]


def _complete(values: dict[str, Any]) -> None:
    """Zeros for a gradient of y that is missing; no gradients of finals where all are missing."""
    tensors = values["tensors"]
    if values["grad_y"] is None:
        values["grad_y"] = tensors[0].new_zeros(tensors[0].shape)
    values["grad_finals"] = _all_or_none(values["grad_finals"], _directions(tensors, values["reverse"]))


_backend = partial(backend_module, __package__)
_forward, _ = register(
    _compute,
    _gradients,
    fake=_fake,
    outputs=("y", "finals", "kept"),
    gradients={"grad_y": "y", "grad_finals": "finals"},
    differentiable=("tensors", "initial", "gate"),
    complete=_complete,
)
