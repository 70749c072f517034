"""Padded frames: the first `lengths[i]` frames of row i are real."""

from __future__ import annotations

import torch
from torch import Tensor


def fill_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(rows, frames, channels) with zero, and never NaN, in the frames that are not real."""
    if lengths is None:
        return x
    return x.masked_fill((torch.arange(x.shape[1], device=x.device) >= lengths[:, None]).unsqueeze(-1), 0)
