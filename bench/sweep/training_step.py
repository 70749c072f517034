"""The trainer's step on made-up clips, for planning and for measuring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusion.training import step

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
        changes: of its network, such as "mixer=attn" and "size=64".
        device: where it lives; on "meta" it takes no memory.
        updates: whether the weights are updated, which takes the memory of the optimizer and of the average.
        dtype: of the arithmetic, see `diffusion.training.step.TrainingStep`.
    """
    from diffusion import presets
    from diffusion.model.backbone import Backbone
    from diffusion.process.process import Process
    from diffusion.training import step

    config = presets.preset(preset)
    model = config.model.override(changes)
    with torch.device(device), torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = Backbone(model)
        clean, noise = (torch.randn(clips, frames, model.channels, model.size, model.size) for _ in range(2))
        drawn = step.Drawn(clean, noise, torch.zeros(clips, dtype=torch.int64), None)
    process = Process.from_config(config.process)
    return TrainingStep(step.TrainingStep(network, process, config.optimizer, dtype=dtype, updates=updates), drawn)


def paper_model(size: str) -> tuple[str, nn.Module]:
    """Mixer and network, on the meta device, of the model of arXiv 2403.07711 with that printed size."""
    from diffusion.model.backbone import Backbone
    from diffusion.presets import model_preset

    config = model_preset(f"paper-{size}")
    with torch.device("meta"):
        return config.mixer, Backbone(config)


class TrainingStep:
    """The trainer's step (`diffusion.training.step.TrainingStep`) with the clips that it takes again and again."""

    def __init__(self, step: step.TrainingStep, drawn: step.Drawn) -> None:
        self.step = step
        self.drawn = drawn
        self.network = step.network
        self._number = 0

    @property
    def noisy(self) -> Tensor:
        """Clips to denoise: at inference they come from a sampler, here they are noise."""
        return self.drawn.noise

    @property
    def levels(self) -> Tensor:
        """The noise level of each clip."""
        return self.drawn.levels

    def denoise(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """What the network predicts."""
        return self.step.predict(noisy, levels)

    def forward(self) -> Tensor:
        """The loss, with its graph."""
        return self.step.losses(self.drawn).mean()

    def __call__(self) -> None:
        self._number += 1
        self.step(self.drawn, self._number)

    def pretend_a_step_was_taken(self) -> None:
        """Makes what the first step leaves behind, gradients and the optimizer's state, without a forward pass."""
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        if self.step.optimizer is not None:
            self.step.optimizer.step()

    def parts(self) -> dict[str, list[Tensor]]:
        """What lives from one step to the next, by name."""
        parameters = list(self.network.parameters())
        optimizer, average = self.step.optimizer, self.step.average
        states = optimizer.state.values() if optimizer is not None else ()
        return {
            "parameters": [*parameters, *self.network.buffers()],
            "gradients": [parameter.grad for parameter in parameters if parameter.grad is not None],
            # Without the counts of steps, which are numbers and live on the CPU.
            "optimizer": [value for state in states for value in state.values() if value.ndim],
            "average": list(average.model.parameters()) if average is not None else [],
            "batch": [tensor for tensor in self.drawn if tensor is not None],
        }
