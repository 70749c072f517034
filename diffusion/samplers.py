"""Samplers: plain generators over a denoiser, from pure noise to a clip.

A denoiser is a function (noisy, levels) -> estimate of the clean clip in [-1, 1].  Every sampler yields its running
estimate of the clean clip, so that drawing, early stopping and tests need no callback; the last one is the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from diffusion.process import Process

Denoiser = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[], Tensor]


def denoiser(network: Callable[..., Tensor], process: Process) -> Denoiser:
    """Turns a network into an estimate of the clean clip, clamped to [-1, 1]."""

    def denoise(noisy: Tensor, levels: Tensor) -> Tensor:
        with torch.no_grad():
            return process.to_clean(network(noisy, levels).float(), noisy, levels).clamp(-1, 1)

    return denoise


def ancestral(denoise: Denoiser, process: Process, start: Tensor, fresh: Noise) -> Iterator[Tensor]:
    """Samples each x_{t-1} from q(x_{t-1} | x_t, estimate of x_0), all T levels (arXiv 2006.11239, algorithm 2).

    Args:
        start: standard normal noise, (clips, frames, channels, height, width).
        fresh: returns new standard normal noise of that shape.
    """
    x = start
    for step in reversed(range(process.steps)):
        clean = denoise(x, torch.full(x.shape[:1], step, device=x.device))
        x = process.posterior_clean[step].item() * clean + process.posterior_noisy[step].item() * x
        if step > 0:
            x = x + process.posterior_variance[step].sqrt().item() * fresh()
        yield clean


def ddim(denoise: Denoiser, process: Process, start: Tensor, *, num_steps: int) -> Iterator[Tensor]:
    """Deterministic sampler on `num_steps` evenly spaced levels (arXiv 2010.02502, eq. 12 with sigma = 0).

    Raises:
        ValueError: more steps than the process has levels, or none.
    """
    if not 1 <= num_steps <= process.steps:
        raise ValueError(
            f"{num_steps} sampling steps were asked for; this process has {process.steps} levels, so at most that many"
        )
    x = start
    levels = torch.linspace(process.steps - 1, 0, num_steps).round().long().tolist()
    for step, following in zip(levels, [*levels[1:], None], strict=True):
        now = torch.full(x.shape[:1], step, device=x.device)
        clean = denoise(x, now)
        if following is not None:
            signal = process.alphas_bar[following].item()
            x = signal**0.5 * clean + (1 - signal) ** 0.5 * process.to_noise(clean, x, now)
        yield clean
