"""Builds the step of a case: a forward pass, training step or sampling step of a bare mixer or a whole denoiser."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from temporal_zoo import registry
from temporal_zoo.ops import autocast

from .case import Case
from .training_step import SEED, training_step


@dataclass(frozen=True)
class Workload:
    """The module and the functions that are measured.

    `step` is timed.  `forward` is its forward pass with a graph (for the denoiser up to the loss), whose saved tensors
    are counted.
    """

    module: nn.Module
    forward: Callable[[], Tensor]
    step: Callable[[], object]


def build(case: Case) -> Workload:
    """Module, inputs and step of a case, on its device; the caller's random state does not change."""
    device = torch.device(case.device)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return _mixer(case, device) if case.level == "mixer" else _model(case, device)


def precision(case: Case) -> AbstractContextManager:
    """Autocast to the precision of a case; parameters stay float32, as in training."""
    return autocast(torch.device(case.device).type, getattr(torch, case.dtype))


def _mixer(case: Case, device: torch.device) -> Workload:
    """Forward pass of a bare mixer; in training also the gradients of its input and parameters, and no optimizer."""
    assert case.rows is not None
    assert case.dim is not None
    module = registry.build(case.mixer, case.dim).to(device)
    shape = (case.rows, case.frames, case.dim)
    x = torch.randn(shape, device=device).requires_grad_()
    upstream = torch.randn(shape, device=device)

    def forward() -> Tensor:
        with precision(case):
            return module(x)

    def train() -> None:
        forward().backward(upstream)
        x.grad = None
        module.zero_grad()

    return Workload(module, forward, train if case.mode == "train" else torch.no_grad()(forward))


def _model(case: Case, device: torch.device) -> Workload:
    """One call of the denoiser; in training the trainer's whole step (`training_step`).

    A sampling step also computes the next, less noisy clip: clamp, posterior and new noise.
    """
    from diffusion.presets import preset
    from diffusion.process.process import Process
    from diffusion.process.samplers import ancestral, denoiser

    assert case.preset is not None
    assert case.clips is not None
    assert case.size is not None
    train = training_step(
        case.preset,
        f"mixer={case.mixer}",
        f"size={case.size}",
        clips=case.clips,
        frames=case.frames,
        device=device,
        updates=case.mode == "train",
        dtype=getattr(torch, case.dtype),
    )
    process = Process.from_config(preset(case.preset).process)

    def predict() -> Tensor:
        return train.denoise(train.noisy, train.levels)

    def sample() -> Tensor:
        # The first of two steps, because the last step of a sampler adds no noise.
        noise = functools.partial(torch.randn_like, train.noisy)
        return next(ancestral(denoiser(train.denoise, process), process, train.noisy, noise, num_steps=2))

    steps: dict[str, Callable[[], object]] = {
        "forward": torch.no_grad()(predict),
        "train": train,
        "sample": torch.no_grad()(sample),
    }
    return Workload(train.network, train.forward, steps[case.mode])
