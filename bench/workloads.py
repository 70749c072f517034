"""What runs for a case: a bare mixer, or the denoiser around it; a forward pass, a training or a sampling step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temporal_zoo.registry import build as build_mixer

from .case import Case

SEED = 0


@dataclass(frozen=True)
class Workload:
    """`step` is what is timed; `forward` is its forward pass with a graph, whose stored tensors are counted."""

    module: nn.Module
    forward: Callable[[], Tensor]
    step: Callable[[], object]


def build(case: Case) -> Workload:
    """Module, inputs and step of a case, on its device; the caller's random state is untouched."""
    device = torch.device(case.device)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return _mixer(case, device) if case.level == "mixer" else _model(case, device)


def autocast(case: Case) -> torch.autocast:
    """The precision of a case: parameters stay float32, as in training, and arithmetic is autocast."""
    return torch.autocast(
        torch.device(case.device).type, dtype=getattr(torch, case.dtype), enabled=case.dtype != "float32"
    )


def _mixer(case: Case, device: torch.device) -> Workload:
    """Forward pass of a bare mixer; in training also the gradients of its input and parameters, and no optimizer."""
    assert case.rows is not None
    assert case.dim is not None
    module = build_mixer(case.mixer, case.dim).to(device)
    shape = (case.rows, case.frames, case.dim)
    x = torch.randn(shape, device=device).requires_grad_()
    upstream = torch.randn(shape, device=device)

    def forward() -> Tensor:
        with autocast(case):
            return module(x)

    def train() -> None:
        forward().backward(upstream)
        x.grad = None
        module.zero_grad()

    return Workload(module, forward, train if case.mode == "train" else torch.no_grad()(forward))


def _model(case: Case, device: torch.device) -> Workload:
    """One denoiser call; in training also loss, gradients and AdamW, which is one whole training step of one batch.

    In sampling also the way from its answer to the next, less noisy clip: clamp, posterior and fresh noise.
    """
    from diffusion.backbone import Backbone
    from diffusion.presets import preset
    from diffusion.process import Process
    from diffusion.samplers import ancestral, denoiser

    assert case.preset is not None
    assert case.clips is not None
    assert case.size is not None
    whole = preset(case.preset)
    config = whole.model.replace(mixer=case.mixer, size=case.size)
    module = Backbone(config).to(device)
    noisy, target = torch.randn(2, case.clips, case.frames, config.channels, case.size, case.size, device=device)
    levels = torch.zeros(case.clips, dtype=torch.int64, device=device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)

    def forward() -> Tensor:
        with autocast(case):
            return module(noisy, levels)

    def train() -> None:
        F.mse_loss(forward().float(), target).backward()
        optimizer.step()
        optimizer.zero_grad()

    process = Process.from_config(whole.process)

    def network(x: Tensor, at: Tensor) -> Tensor:
        with autocast(case):
            return module(x, at)

    def sample() -> Tensor:
        # Of two steps the first: the last one of a sampler adds no noise.
        fresh = functools.partial(torch.randn_like, noisy)
        return next(ancestral(denoiser(network, process), process, noisy, fresh, num_steps=2))

    steps = {"forward": torch.no_grad()(forward), "train": train, "sample": torch.no_grad()(sample)}
    return Workload(module, forward, steps[case.mode])
