"""The trainer's step on random clips, for plans and measurements."""

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
) -> FixedBatchStep:
    """The training step of a preset's denoiser on random clips.

    Args:
        changes: changes of the network's configuration, such as "mixer=attn" and "size=64".
        device: torch device; on "meta" the step needs no memory.
        updates: updates the weights, which needs the memory of the optimizer and of the weight average.
        dtype: precision of the arithmetic, see `diffusion.training.step.TrainingStep`.
    """
    from diffusion import presets
    from diffusion.model.backbones import build_network
    from diffusion.process.process import Process
    from diffusion.training import step

    config = presets.preset(preset)
    model = config.model.override(changes)
    with torch.device(device), torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = build_network(model)
        clean, noise = (torch.randn(clips, frames, model.channels, model.size, model.size) for _ in range(2))
        drawn = step.TrainingBatch(clean, noise, torch.zeros(clips, dtype=torch.int64), None)
    process = Process.from_config(config.process)
    return FixedBatchStep(step.TrainingStep(network, process, config.optimizer, dtype=dtype, updates=updates), drawn)


def paper_model(size: str) -> tuple[str, nn.Module]:
    """Mixer and network, on the meta device, of the model of arXiv 2403.07711 with that printed size."""
    from diffusion.model.backbones import build_network
    from diffusion.presets import model_preset

    config = model_preset(f"paper-{size}")
    with torch.device("meta"):
        return config.mixer, build_network(config)


class FixedBatchStep:
    """The trainer's step (`diffusion.training.step.TrainingStep`) that uses the same batch in every call."""

    def __init__(self, step: step.TrainingStep, drawn: step.TrainingBatch) -> None:
        self.step = step
        self.drawn = drawn
        self.network = step.network

    @property
    def noisy(self) -> Tensor:
        """The clips to denoise, which are noise."""
        return self.drawn.noise

    @property
    def levels(self) -> Tensor:
        """The noise level of each clip."""
        return self.drawn.levels

    def denoise(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """The network's prediction."""
        return self.step.predict(noisy, levels)

    def forward(self) -> Tensor:
        """The loss, with its graph."""
        return self.step.losses(self.drawn).mean()

    def __call__(self) -> None:
        self.step(self.drawn)

    def pretend_a_step_was_taken(self) -> None:
        """Allocates the gradients and the optimizer's state, as the first step does, without a forward pass."""
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        if self.step.optimizer is not None:
            self.step.optimizer.step()

    def parts(self) -> dict[str, list[Tensor]]:
        """The tensors that exist between two steps, by name."""
        parameters = list(self.network.parameters())
        optimizer, average = self.step.optimizer, self.step.average
        states = optimizer.state.values() if optimizer is not None else ()
        return {
            "parameters": [*parameters, *self.network.buffers()],
            "gradients": [parameter.grad for parameter in parameters if parameter.grad is not None],
            # Step counters are scalars on the CPU and are left out.
            "optimizer": [value for state in states for value in state.values() if value.ndim],
            "average": list(average.module.parameters()) if average is not None else [],
            "batch": [tensor for tensor in self.drawn if tensor is not None],
        }
