"""An exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


class MovingAverage(AveragedModel):
    """w <- d w + (1 - d) theta in each `update_parameters(network)`; `module` is a copy of the network that holds w.

    `n_averaged` counts the initial weights and the updates; a resumed run restores it (`set_updates`).

    Args:
        network: w begins at its weights.
        decay: d.
        warmup: whether d rises as (1 + n) / (10 + n) to `decay`, where n counts updates from 1, so that a short run
            depends less on its initial weights.
    """

    def __init__(self, network: nn.Module, *, decay: float, warmup: bool) -> None:
        super().__init__(network, multi_avg_fn=self._update)
        self.requires_grad_(False).eval()
        self.decay = decay
        self.warmup = warmup
        self.set_updates(0)

    def set_updates(self, count: int) -> None:
        """Continues after `count` updates."""
        # Not `count`: AveragedModel copies the network's weights over the average while its own count is 0.
        self.n_averaged.fill_(1 + count)

    def _update(self, averaged: Tensors, weights: Tensors, _: object) -> None:
        n = int(self.n_averaged)  # on the CPU, also where the weights are on another device
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        torch._foreach_lerp_(averaged, weights, 1 - decay)
