"""Runs the inside of `selective_block` on the meta device, so that a plan can count its intermediate tensors.

The code of the layer runs for one block of rows.  The operators of convolution and scan take the place of the backends,
because their fake implementations work on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from temporal_zoo.ops.selective_block import _operator
from temporal_zoo.ops.selective_scan import Direction

_registered = torch.ops.temporal_zoo
_TENSORS = tuple(field.name for field in fields(Direction) if field.name != "reverse")


class _Conv:
    """A backend of `causal_conv`, called through its operator."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def forward(self, *arguments):
        return _registered.causal_conv(*arguments, self.backend)

    def backward(self, *arguments):
        return _registered.causal_conv_backward(*arguments, self.backend)


class _Scan:
    """A backend of `selective_scan`, called through its operator."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def forward(self, directions, gate, lengths, initial, *, return_final, keep):
        tensors, reverse = _flat(directions)
        return _registered.selective_scan(self.backend, tensors, reverse, gate, lengths, initial, return_final, keep)

    def backward(self, grad_y, grad_finals, directions, gate, lengths, initial, kept):
        tensors, reverse = _flat(directions)
        grads = _registered.selective_scan_backward(
            self.backend, grad_y, grad_finals, tensors, reverse, gate, lengths, initial, kept
        )
        size = len(_TENSORS)
        named = [
            Direction(**dict(zip(_TENSORS, grads[size * i : size * (i + 1)], strict=True))) for i in range(len(reverse))
        ]
        return named, None, []


def _flat(directions: Sequence[Direction]) -> tuple[list[Tensor], list[bool]]:
    tensors = [getattr(each, name) for each in directions for name in _TENSORS]
    return tensors, [each.reverse for each in directions]


def _layer(parameters, reverse, conv, scan):
    layer = _operator._Layer.make(parameters, reverse, conv, scan)
    return replace(layer, conv=_Conv(conv), scan=_Scan(scan))


def _forward(x, parameters, reverse, lengths, conv, scan, keep):
    layer = _layer(parameters, reverse, conv, scan)
    rows = next(iter(layer.blocks(x)))
    _operator._forward_block(layer, x[rows], None if lengths is None else lengths[rows], keep)


def _backward(dy, x, parameters, reverse, lengths, conv, scan, kept):
    layer = _layer(parameters, reverse, conv, scan)
    rows = next(iter(layer.blocks(x)))
    real = None if lengths is None else lengths[rows]
    _operator._backward_block(layer, dy[rows], x[rows], real, [whole[rows] for whole in kept])


REHEARSALS: dict[str, Callable[..., object]] = {
    "temporal_zoo::selective_block": _forward,
    "temporal_zoo::selective_block_backward": _backward,
}
