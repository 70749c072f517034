"""An exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MovingAverage:
    """w <- d w + (1 - d) theta after every step; `model` is a copy of the network that holds w.

    With `warmup`, d rises as (1 + n) / (10 + n) to the given decay, so that a short run is not dominated by its start.
    """

    def __init__(self, network: nn.Module, *, decay: float, warmup: bool) -> None:
        self.model = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.warmup = warmup

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Moves towards the network's weights; `step` counts finished steps from 1."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        torch._foreach_lerp_(list(self.model.parameters()), list(network.parameters()), 1 - decay)
