"""Samples clips from a trained network; a sample depends on (seed, its number) and not on the batch size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffusion.clip import Clip, ClipBatch
from diffusion.config import MOST_FRAMES, TrainConfig
from diffusion.model.backbone import Backbone
from diffusion.model.backbones import build_network
from diffusion.process.process import Process, draw_noise
from diffusion.process.samplers import ancestral, ddim, denoiser
from diffusion.randomness import generator
from diffusion.training import checkpoint
from diffusion.training.step import DTYPES
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import autocast

Sampler = Literal["ancestral", "ddim"]
# The defaults.  In 64 steps of a half-trained network, `ancestral` gives cleaner pictures than `ddim` (decision 13).
SAMPLER: Sampler = "ancestral"
STEPS = 64


def generate(
    network: nn.Module,
    config: TrainConfig,
    numbers: range,
    *,
    seed: int = 0,
    sampler: Sampler = SAMPLER,
    num_steps: int | None = None,
    frames: int | None = None,
) -> Iterator[Tensor]:
    """Samples the clips with these numbers together; yields the running estimate, (clips, frames, c, h, w) in [-1, 1].

    Args:
        network: a trained network, on its device.
        config: the configuration of its run.
        numbers: numbers of the samples.
        num_steps: number of noise levels that the sampler visits; see `levels_visited`.  The paper visits all
            (arXiv 2403.07711).
        frames: length of the clips; by default that of training.
    Raises:
        InvalidInput: more frames than `MOST_FRAMES`, or more sampling steps than the process has noise levels.
    """
    if frames is not None and not 1 <= frames <= MOST_FRAMES:
        raise InvalidInput(f"a clip cannot have {frames:,} frames; choose 1 to {MOST_FRAMES:,}")
    device = next(network.parameters()).device
    process = Process.from_config(config.process)
    model = config.model
    shape = (frames or config.data.frames, model.channels, model.size, model.size)
    start = draw_noise(seed, "sample", numbers, shape).to(device)
    generators = [generator(seed, "sample steps", number) for number in numbers]

    # Autocast covers the network alone: around the generator, it would stay active for the caller between estimates.
    def predict(noisy: Tensor, levels: Tensor) -> Tensor:
        with autocast(device.type, DTYPES[config.precision]):
            return network(noisy, levels)

    def fresh() -> Tensor:
        return torch.stack([torch.randn(shape, generator=each) for each in generators]).to(device)

    denoise = denoiser(predict, process)
    num_steps = levels_visited(config, num_steps)
    if sampler == "ddim":
        yield from ddim(denoise, process, start, num_steps=num_steps)
    else:
        yield from ancestral(denoise, process, start, fresh, num_steps=num_steps)


def levels_visited(config: TrainConfig, num_steps: int | None) -> int:
    """Number of noise levels that a sampler visits: `num_steps`, by default `STEPS`, or all if there are fewer."""
    return min(STEPS, config.process.steps) if num_steps is None else num_steps


def load_network(path: Path, device: torch.device) -> tuple[Backbone, TrainConfig, float]:
    """The averaged network of a checkpoint, its run's configuration, and the frame rate of its clips.

    Raises:
        CheckpointError: the file is not a checkpoint, is damaged, or does not fit the network of this version.
    """
    content = checkpoint.load(path, checkpoint.WEIGHTS)
    config = checkpoint.config_of(content, path)
    network = build_network(config.model, seed=0)
    checkpoint.fill(network, content["average"], path, {})
    return network.to(device).eval(), config, content["fps"]


def sample_clips(
    network: nn.Module, config: TrainConfig, count: int, *, fps: float, first: int = 0, **how: Any
) -> list[Clip]:
    """Samples the clips `first` to `first + count` together; `how` holds arguments of `generate`."""
    for estimate in generate(network, config, range(first, first + count), **how):
        values = estimate
    return ClipBatch(values.cpu()).to_clips(fps)
