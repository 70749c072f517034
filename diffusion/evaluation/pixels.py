"""Converts clips to the input of a network: range, quantisation, size and axis order of a protocol.

Letters: b clips, t frames, c channels, h height, w width.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from diffusion.clip import from_uint8, to_uint8
from diffusion.evaluation.protocol import EvaluationProtocol


def prepared(values: Tensor, protocol: EvaluationProtocol, size: int) -> Tensor:
    """Converts clips to (b, 3, t, size, size) float32 in the protocol's range.

    Args:
        values: (b, t, c, h, w) uint8, or floats in [-1, 1]; a single channel is repeated.
    """
    values = quantised_values(values, protocol)
    values = resized(values, size, protocol.resize)
    if protocol.low == 0:
        values = (values + 1) / 2
    return values.expand(-1, -1, 3, -1, -1).transpose(1, 2)


def quantised_values(values: Tensor, protocol: EvaluationProtocol) -> Tensor:
    """Converts to floats in [-1, 1]; rounds them to the 256 values of uint8 if the protocol quantises."""
    if values.dtype == torch.uint8:
        return from_uint8(values)
    return from_uint8(to_uint8(values)) if protocol.quantised else values.float()


def resized(values: Tensor, size: int, how: Literal["half-pixel", "legacy"]) -> Tensor:
    """Resizes the last two axes to size x size by bilinear interpolation, without antialiasing."""
    height, width = values.shape[-2:]
    if (height, width) == (size, size):
        return values
    rows, columns = _weights(height, size, how).to(values), _weights(width, size, how).to(values)
    return rows @ (values @ columns.T)


@cache
def _weights(length: int, size: int, how: str) -> Tensor:
    """(size, length) float32: the weights of the two nearest old pixels for each new pixel; edges are repeated."""
    position = torch.arange(size, dtype=torch.float64)
    scale = length / size
    position = position * scale if how == "legacy" else (position + 0.5) * scale - 0.5
    position = position.clamp(0, length - 1)
    lower = position.floor()
    fraction = position - lower
    weights = torch.zeros(size, length, dtype=torch.float64)
    rows = torch.arange(size)
    weights[rows, lower.long()] += 1 - fraction
    weights[rows, (lower.long() + 1).clamp(max=length - 1)] += fraction
    return weights.float()
