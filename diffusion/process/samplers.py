"""Samplers: plain generators over a denoiser, from pure noise to a clip.

A denoiser is a function (noisy, levels) -> estimate of the clean clip in [-1, 1].  Every sampler yields its running
estimate of the clean clip, so that drawing, early stopping and tests need no callback; the last one is the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from diffusion.process.process import Process
from temporal_zoo.errors import InvalidInput

Denoiser = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[], Tensor]


def denoiser(network: Callable[..., Tensor], process: Process) -> Denoiser:
    """Turns a network into an estimate of the clean clip, clamped to [-1, 1]."""

    def denoise(noisy: Tensor, levels: Tensor) -> Tensor:
        with torch.no_grad():
            return process.to_clean(network(noisy, levels).float(), noisy, levels).clamp(-1, 1)

    return denoise


def ancestral(
    denoise: Denoiser, process: Process, start: Tensor, fresh: Noise, *, num_steps: int | None = None
) -> Iterator[Tensor]:
    """Samples each next x from q(next x | x, estimate of x_0) (arXiv 2006.11239, algorithm 2).

    Args:
        start: standard normal noise, (clips, frames, channels, height, width).
        fresh: returns new standard normal noise of that shape.
        num_steps: visits so many evenly spaced levels (arXiv 2102.09672, section 4); all of them unless given.
    Raises:
        ValueError: more steps than the process has levels, or none.
    """
    x = start
    levels = _spaced(process, process.steps if num_steps is None else num_steps)
    visited = process.only(levels)
    for place, level in reversed(list(enumerate(levels))):
        clean = denoise(x, torch.full(x.shape[:1], level, device=x.device))
        x = visited.posterior_clean[place].item() * clean + visited.posterior_noisy[place].item() * x
        if place > 0:
            x = x + visited.posterior_variance[place].sqrt().item() * fresh()
        yield clean


def ddim(denoise: Denoiser, process: Process, start: Tensor, *, num_steps: int) -> Iterator[Tensor]:
    """Deterministic sampler on `num_steps` evenly spaced levels (arXiv 2010.02502, eq. 12 with sigma = 0).

    Raises:
        ValueError: more steps than the process has levels, or none.
    """
    x = start
    levels = _spaced(process, num_steps)
    for place, level in reversed(list(enumerate(levels))):
        now = torch.full(x.shape[:1], level, device=x.device)
        clean = denoise(x, now)
        if place > 0:
            signal = process.exact[levels[place - 1]].item()
            x = signal**0.5 * clean + (1 - signal) ** 0.5 * process.to_noise(clean, x, now)
        yield clean


def _spaced(process: Process, num_steps: int) -> list[int]:
    """`num_steps` levels in rising order, evenly spaced, the last one always among them."""
    if not 1 <= num_steps <= process.steps:
        raise InvalidInput(
            f"{num_steps} sampling steps were asked for; this process has {process.steps} levels, so at most that many"
        )
    return torch.linspace(process.steps - 1, 0, num_steps).round().long().flip(0).tolist()
