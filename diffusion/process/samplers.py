"""Samplers: generators that go from pure noise to a clip.

A denoiser is a function (noisy, levels) -> estimate of the clean clip in [-1, 1].  A sampler yields its estimate of the
clean clip after each step, so that callers need no callback; the last estimate is the sample.
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
    """The denoiser of a network; its estimates are clamped to [-1, 1]."""

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
        num_steps: number of evenly spaced noise levels to visit (arXiv 2102.09672, section 4); by default all.
    Raises:
        InvalidInput: more sampling steps than the process has noise levels, or none.
    """
    x = start
    levels = _spaced(process, process.num_levels if num_steps is None else num_steps)
    visited = process.only(levels)
    for index, level in reversed(list(enumerate(levels))):
        clean = denoise(x, torch.full(x.shape[:1], level, device=x.device))
        x = visited.posterior_clean[index].item() * clean + visited.posterior_noisy[index].item() * x
        if index > 0:
            x = x + visited.posterior_variance[index].sqrt().item() * fresh()
        yield clean


def ddim(denoise: Denoiser, process: Process, start: Tensor, *, num_steps: int) -> Iterator[Tensor]:
    """Deterministic sampler on `num_steps` evenly spaced noise levels (arXiv 2010.02502, eq. 12 with sigma = 0).

    Raises:
        InvalidInput: more sampling steps than the process has noise levels, or none.
    """
    x = start
    levels = _spaced(process, num_steps)
    for index, level in reversed(list(enumerate(levels))):
        now = torch.full(x.shape[:1], level, device=x.device)
        clean = denoise(x, now)
        if index > 0:
            alpha_bar = process.exact[levels[index - 1]].item()
            x = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * process.to_noise(clean, x, now)
        yield clean


def _spaced(process: Process, num_steps: int) -> list[int]:
    """`num_steps` evenly spaced noise levels in rising order; they include the highest one."""
    if not 1 <= num_steps <= process.num_levels:
        raise InvalidInput(
            f"{num_steps} sampling steps are not possible; choose 1 to {process.num_levels}, the number of noise levels"
        )
    return torch.linspace(process.num_levels - 1, 0, num_steps).round().long().flip(0).tolist()
