"""The training step: `zoo train` runs it, `zoo bench` times it, `zoo plan` and ablations count its bytes."""

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


class TrainingBatch(NamedTuple):
    """The inputs of the loss: clean clips, noise, noise levels, and lengths if frames are padded."""

    clean: Tensor
    noise: Tensor
    levels: Tensor
    lengths: Tensor | None

    def part(self, first: int, count: int) -> TrainingBatch:
        """The clips `first` to `first + count`."""
        return TrainingBatch(*(None if field is None else field[first : first + count] for field in self))  # type: ignore[arg-type]


class StepResult(NamedTuple):
    """Mean loss of the clips and norm of the gradient, as scalar tensors; `finite` says whether both are finite.

    If they are not finite, the step updated nothing.  On the meta device, which has no values, `finite` is true.
    """

    loss: Tensor
    gradient_norm: Tensor
    finite: bool


class TrainingStep:
    """Noising, forward pass, loss, backward pass, gradient norm, check for finite numbers, AdamW, moving average.

    On the meta device it takes no memory, and its operations can be counted.

    Args:
        network: the network to train, on its device.
        process: the diffusion process.
        optimizer: options of AdamW and of the moving average.
        dtype: of the network's arithmetic, by autocast unless float32; weights, loss and updates are float32.
        updates: False for a step that ends after the gradient, without optimizer and average.
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
        """The network's prediction, in the step's arithmetic."""
        with autocast(noisy.device.type, self.dtype):
            return self.network(noisy, levels)

    def losses(self, batch: TrainingBatch, network: nn.Module | None = None) -> Tensor:
        """The loss of each clip, with its graph, of `network` (by default the network in training)."""
        with autocast(batch.clean.device.type, self.dtype):
            return loss(self.network if network is None else network, self.process, *batch)

    def __call__(self, batch: TrainingBatch) -> StepResult:
        """Takes one step."""
        self.network.train()
        value = self.losses(batch).mean()
        self.network.zero_grad(set_to_none=True)
        self._backward(value)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.limit)
        # Reading the numbers makes Python wait for the GPU once per step; the trainer reports them anyway.
        finite = value.is_meta or bool(torch.isfinite(torch.stack([value.detach(), norm])).all())
        if finite and self.optimizer is not None and self.average is not None:
            self.optimizer.step()
            self.average.update_parameters(self.network)
        return StepResult(value.detach(), norm, finite)

    def _backward(self, value: Tensor) -> None:
        if not value.is_meta or self.dtype == torch.float32:
            return value.backward()
        # Recomputation in backward restores torch's own autocast only, so backward runs inside the plan's autocast.
        with autocast("meta", self.dtype, cache_enabled=False):
            # The function that `backward()` calls.  The autocast would intercept `backward()` and be off inside it.
            torch.autograd.Variable._execution_engine.run_backward(
                (value,), (torch.ones_like(value),), False, False, (), allow_unreachable=True, accumulate_grad=True
            )


def _adamw(network: Backbone, config: OptimizerConfig) -> torch.optim.AdamW:
    no_decay = network.no_decay()
    named = list(network.named_parameters())
    groups = [
        {"params": [p for name, p in named if name not in no_decay], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if name in no_decay], "weight_decay": 0.0},
    ]
    # Torch updates weights one by one on the meta device and all together on CUDA; plans must count the latter.
    foreach = True if named[0][1].is_meta else None
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), foreach=foreach)
