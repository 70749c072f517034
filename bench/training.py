"""One training step of the denoiser as the trainer takes it, the same for planning and for measuring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temporal_zoo.ops import autocast

if TYPE_CHECKING:
    from diffusion.ema import MovingAverage

SEED = 0


def training_step(
    preset: str,
    *changes: str,
    clips: int,
    frames: int,
    device: torch.device,
    updates: bool = True,
    dtype: torch.dtype = torch.float32,
) -> TrainingStep:
    """A step of the denoiser of that preset, on made-up clips.

    Args:
        changes: of its configuration, such as "mixer=attn" and "size=64".
        device: where it lives; on "meta" it takes no memory.
        updates: whether the weights are updated, which takes the memory of the optimizer and of the average.
        dtype: of the arithmetic, see `TrainingStep`.
    """
    from diffusion.backbone import Backbone
    from diffusion.ema import MovingAverage
    from diffusion.presets import model_preset

    config = model_preset(preset).override(changes)
    with torch.device(device), torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = Backbone(config)
        noisy, target = (torch.randn(clips, frames, config.channels, config.size, config.size) for _ in range(2))
        levels = torch.zeros(clips, dtype=torch.int64)
    average = MovingAverage(network, decay=0.9999, warmup=False) if updates else None
    return TrainingStep(network, average, (noisy, target, levels), dtype)


def paper_model(size: str) -> tuple[str, int, nn.Module]:
    """Mixer, heads and network (on the meta device) of the model of arXiv 2403.07711 that is printed with that size."""
    from diffusion.backbone import Backbone
    from diffusion.presets import model_preset

    config = model_preset(f"paper-{size}")
    with torch.device("meta"):
        return config.mixer, config.heads, Backbone(config)


class TrainingStep:
    """Forward pass, loss, backward pass, AdamW and the moving average of the weights.

    Args:
        network: the denoiser.
        average: the moving average of its weights, or None for a step that updates nothing.
        batch: noisy clips, what the network should predict, and noise levels.
        dtype: of the network's arithmetic: autocast unless float32; weights, loss and updates are float32.
    """

    def __init__(
        self,
        network: nn.Module,
        average: MovingAverage | None,
        batch: tuple[Tensor, Tensor, Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.network = network
        self.average = average
        self.noisy, self.target, self.levels = batch
        self.dtype = dtype
        # On the meta device torch would update the weights one by one; on CUDA it takes them together, and so do plans.
        together = self.noisy.device.type in ("cuda", "meta")
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, foreach=together) if average else None

    def denoise(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """What the network predicts."""
        with autocast(noisy.device.type, self.dtype):
            return self.network(noisy, levels)

    def forward(self) -> Tensor:
        """The loss, with its graph."""
        return F.mse_loss(self.denoise(self.noisy, self.levels).float(), self.target)

    def __call__(self) -> None:
        loss = self.forward()
        self.network.zero_grad()
        if self.noisy.is_meta and self.dtype != torch.float32:
            self._backward_as_planned(loss)
        else:
            loss.backward()
        if self.optimizer is not None and self.average is not None:
            self.optimizer.step()
            self.average.update(self.network, step=1)

    def _backward_as_planned(self, loss: Tensor) -> None:
        """Backward pass in the autocast of the plan: checkpoints, which compute again, bring back torch's own alone."""
        with autocast("meta", self.dtype, cache_enabled=False):
            # What `loss.backward()` ends in.  That itself is a function which the autocast looks at, and is off within.
            torch.autograd.Variable._execution_engine.run_backward(
                (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
            )

    def pretend_a_step_was_taken(self) -> None:
        """Makes what the first step leaves behind, gradients and the optimizer's state, without a forward pass."""
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        if self.optimizer is not None:
            self.optimizer.step()

    def parts(self) -> dict[str, list[Tensor]]:
        """What lives from one step to the next, by name."""
        parameters = list(self.network.parameters())
        states = self.optimizer.state.values() if self.optimizer is not None else ()
        return {
            "parameters": [*parameters, *self.network.buffers()],
            "gradients": [parameter.grad for parameter in parameters if parameter.grad is not None],
            # Without the counts of steps, which are numbers and live on the CPU.
            "optimizer": [value for state in states for value in state.values() if value.ndim],
            "average": list(self.average.model.parameters()) if self.average is not None else [],
            "batch": [self.noisy, self.target, self.levels],
        }
