"""The training step: what the trainer runs, the bench times, plans count and ablations budget."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion.config import OptimizerConfig
from diffusion.model.backbone import Backbone
from diffusion.process.process import Process, loss
from diffusion.training.ema import MovingAverage
from temporal_zoo.ops import autocast

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # of the network's arithmetic, by `TrainConfig.precision`


class Drawn(NamedTuple):
    """What the loss of some clips needs: clean clips, noise, noise levels, and lengths where frames are padded."""

    clean: Tensor
    noise: Tensor
    levels: Tensor
    lengths: Tensor | None

    def part(self, first: int, count: int) -> Drawn:
        """Some of the clips."""
        return Drawn(*(None if field is None else field[first : first + count] for field in self))  # type: ignore[arg-type]


class Taken(NamedTuple):
    """Mean loss of the clips and norm of the gradient, scalars; `finite` says whether both are numbers.

    Where they are not, nothing was updated.  On the meta device, which has no values, `finite` is true.
    """

    loss: Tensor
    gradient_norm: Tensor
    finite: bool


class TrainingStep:
    """Noising, forward pass, loss, backward pass, gradient norm, check for finite numbers, AdamW, moving average.

    It runs on the meta device too, where it takes no memory and its operations can be counted.

    Args:
        network: in training, on its device.
        process: the diffusion process.
        optimizer: options of AdamW and of the average.
        dtype: of the network's arithmetic: autocast unless float32; weights, loss and updates are float32.
        updates: False for a step that ends with the gradient: no optimizer, no average.
    """

    def __init__(
        self,
        network: Backbone,
        process: Process,
        optimizer: OptimizerConfig,
        *,
        dtype: torch.dtype = torch.float32,
        updates: bool = True,
    ) -> None:
        self.network = network
        self.process = process
        self.dtype = dtype
        self.limit = math.inf if optimizer.clip is None else optimizer.clip
        self.average = MovingAverage(network, decay=optimizer.ema, warmup=optimizer.ema_warmup) if updates else None
        self.optimizer = _adamw(network, optimizer) if updates else None

    def predict(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """What the network predicts, in the step's arithmetic."""
        with autocast(noisy.device.type, self.dtype):
            return self.network(noisy, levels)

    def losses(self, drawn: Drawn, network: nn.Module | None = None) -> Tensor:
        """The loss of each clip, with its graph; of `network` instead of the one in training, where one is given."""
        with autocast(drawn.clean.device.type, self.dtype):
            return loss(self.network if network is None else network, self.process, *drawn)

    def __call__(self, drawn: Drawn) -> Taken:
        """Takes one step."""
        self.network.train()
        value = self.losses(drawn).mean()
        self.network.zero_grad(set_to_none=True)
        self._backward(value)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.limit)
        # Reading the numbers makes Python wait for a GPU, once: the trainer reports them anyway.
        finite = value.is_meta or bool(torch.isfinite(torch.stack([value.detach(), norm])).all())
        if finite and self.optimizer is not None and self.average is not None:
            self.optimizer.step()
            self.average.update_parameters(self.network)
        return Taken(value.detach(), norm, finite)

    def _backward(self, value: Tensor) -> None:
        if not value.is_meta or self.dtype == torch.float32:
            return value.backward()
        # Within the autocast of the plan: checkpoints, which compute again, bring back torch's own autocast alone.
        with autocast("meta", self.dtype, cache_enabled=False):
            # What `backward()` ends in.  That itself is a function which the autocast looks at, and is off within.
            torch.autograd.Variable._execution_engine.run_backward(
                (value,), (torch.ones_like(value),), False, False, (), allow_unreachable=True, accumulate_grad=True
            )


def _adamw(network: Backbone, config: OptimizerConfig) -> torch.optim.AdamW:
    spared = network.no_decay()
    named = list(network.named_parameters())
    groups = [
        {"params": [p for name, p in named if name not in spared], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if name in spared], "weight_decay": 0.0},
    ]
    # On the meta device torch would update the weights one by one; on CUDA it takes them together, and so do plans.
    together = True if named[0][1].is_meta else None
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), foreach=together)
