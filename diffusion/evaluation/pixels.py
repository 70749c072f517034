"""Clips as a network sees them: range, quantisation, size and axis order of a protocol.

Letters: b clips, t frames, c channels, h height, w width.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from diffusion.clip import from_uint8, to_uint8
from diffusion.evaluation.protocol import Protocol


def prepared(values: Tensor, protocol: Protocol, size: int) -> Tensor:
    """(b, 3, t, size, size) float32 in the protocol's range.

    values: (b, t, c, h, w) uint8, or floats in [-1, 1]; one channel is repeated.
    """
    values = levelled(values, protocol)
    values = resized(values, size, protocol.resize)
    if protocol.low == 0:
        values = (values + 1) / 2
    return values.expand(-1, -1, 3, -1, -1).transpose(1, 2)


def levelled(values: Tensor, protocol: Protocol) -> Tensor:
    """Floats in [-1, 1], on the 256 levels of uint8 where the protocol quantises."""
    if values.dtype == torch.uint8:
        return from_uint8(values)
    return from_uint8(to_uint8(values)) if protocol.quantised else values.float()


def resized(values: Tensor, size: int, how: Literal["half-pixel", "legacy"]) -> Tensor:
    """Bilinear interpolation of the last two axes to size x size, without antialiasing."""
    height, width = values.shape[-2:]
    if (height, width) == (size, size):
        return values
    rows, columns = _weights(height, size, how).to(values), _weights(width, size, how).to(values)
    return rows @ (values @ columns.T)


@cache
def _weights(length: int, size: int, how: str) -> Tensor:
    """(size, length) float32: each new pixel as a mixture of its two neighbours; the edges are repeated."""
    place = torch.arange(size, dtype=torch.float64)
    scale = length / size
    place = place * scale if how == "legacy" else (place + 0.5) * scale - 0.5
    place = place.clamp(0, length - 1)
    lower = place.floor()
    share = place - lower
    weights = torch.zeros(size, length, dtype=torch.float64)
    rows = torch.arange(size)
    weights[rows, lower.long()] += 1 - share
    weights[rows, (lower.long() + 1).clamp(max=length - 1)] += share
    return weights.float()
