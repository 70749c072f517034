"""The diffusion process: adds noise to clean clips, and estimates clean clips from predictions.

    x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) e,   ab_t = prod_{s <= t} (1 - beta_s)            (arXiv 2006.11239, eq. 4)

with the cosine schedule ab(t) = f(t) / f(0), f(t) = cos^2(((t / T) + s) / (1 + s) pi / 2), s = 0.008, betas clipped to
0.9999 (arXiv 2102.09672, eq. 17).  Noise levels count from 0 to T - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffusion.config import ProcessConfig
from diffusion.randomness import generator

Prediction = Literal["epsilon", "x0", "v"]
OFFSET = 0.008
LARGEST_BETA = 0.9999
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def per_frame(levels: Tensor, frames: int) -> Tensor:
    """Noise levels (clips,) or (clips, frames) as (clips, frames)."""
    return levels[:, None].expand(-1, frames) if levels.ndim == 1 else levels


@dataclass(frozen=True)
class Process:
    """The schedule as float32 tensors of length T, computed in float64; `exact` is `alphas_bar` in float64.

    `signal` and `sigma` are sqrt(ab) and sqrt(1 - ab).  1 - ab is computed from `exact`: from float32, sigma would have
    a relative error of 2.6e-4 at the lowest of 1,000 noise levels, where ab is near 1.

    `posterior_*`: q(x_{t-1} | x_t, x_0) has the mean posterior_clean * x_0 + posterior_noisy * x_t and the variance
    posterior_variance (arXiv 2006.11239, eq. 6 and 7).
    """

    prediction: Prediction
    betas: Tensor
    alphas_bar: Tensor
    exact: Tensor
    signal: Tensor
    sigma: Tensor
    posterior_variance: Tensor
    posterior_clean: Tensor
    posterior_noisy: Tensor

    @classmethod
    def from_config(cls, config: ProcessConfig) -> Process:
        """The cosine schedule with `config.steps` noise levels."""
        time = torch.arange(config.steps + 1, dtype=torch.float64) / config.steps
        signal = torch.cos((time + OFFSET) / (1 + OFFSET) * math.pi / 2).square()
        return cls._of(config.prediction, (1 - signal[1:] / signal[:-1]).clamp(0, LARGEST_BETA))

    @classmethod
    def _of(cls, prediction: Prediction, betas: Tensor) -> Process:
        alphas_bar = (1 - betas).cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), alphas_bar[:-1]])
        return cls(
            prediction,
            betas=betas.float(),
            alphas_bar=alphas_bar.float(),
            exact=alphas_bar,
            signal=alphas_bar.sqrt().float(),
            sigma=(1 - alphas_bar).sqrt().float(),
            posterior_variance=(betas * (1 - before) / (1 - alphas_bar)).float(),
            posterior_clean=(betas * before.sqrt() / (1 - alphas_bar)).float(),
            posterior_noisy=((1 - before) * (1 - betas).sqrt() / (1 - alphas_bar)).float(),
        )

    def only(self, levels: Sequence[int]) -> Process:
        """The process restricted to these noise levels, in rising order (arXiv 2102.09672, eq. 19)."""
        if len(levels) == self.num_levels:
            return self
        alphas_bar = self.exact[list(levels)]
        before = torch.cat([torch.ones(1, dtype=torch.float64), alphas_bar[:-1]])
        return self._of(self.prediction, 1 - alphas_bar / before)

    @property
    def num_levels(self) -> int:
        """Number of noise levels T."""
        return len(self.betas)

    def add_noise(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x_t of clips (clips, frames, ...) at noise levels (clips,) or (clips, frames)."""
        signal, sigma = self._scales(levels, clean)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The training target: e, x_0, or v = sqrt(ab) e - sqrt(1 - ab) x_0 (arXiv 2202.00512, app. D)."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "x0":
            return clean
        signal, sigma = self._scales(levels, clean)
        return signal * noise - sigma * clean

    def to_clean(self, prediction: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """The estimate of x_0 from a prediction at x_t, not clamped."""
        if self.prediction == "x0":
            return prediction
        signal, sigma = self._scales(levels, noisy)
        if self.prediction == "v":
            return signal * noisy - sigma * prediction
        return (noisy - sigma * prediction) / signal

    def to_noise(self, clean: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """The estimate of the noise in x_t, from an estimate of x_0."""
        signal, sigma = self._scales(levels, noisy)
        return (noisy - signal * clean) / sigma

    def _scales(self, levels: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(ab) and sqrt(1 - ab), shaped to multiply (clips, frames, channels, height, width)."""
        levels = per_frame(levels, like.shape[1])
        signal, sigma = (
            scale.to(like.device)[levels][..., None, None, None].to(like.dtype) for scale in (self.signal, self.sigma)
        )
        return signal, sigma


def draw_levels(config: ProcessConfig, seed: int, numbers: range, frames: int) -> Tensor:
    """Noise levels of clips, each a function of (seed, global clip number): (clips,) or (clips, frames).

    `stratified` steps through the unit interval by the golden ratio.  Consecutive clips then cover all noise levels
    evenly, and the loss of a small batch is less noisy.
    """
    count = 1 if config.levels == "clip" else frames
    if config.draw == "stratified":
        first = torch.rand(count, generator=generator(seed, "first level"), dtype=torch.float64)
        drawn = (first + torch.tensor(list(numbers), dtype=torch.float64)[:, None] * GOLDEN_RATIO) % 1
    else:
        drawn = torch.stack([torch.rand(count, generator=generator(seed, "level", number)) for number in numbers])
    levels = (drawn.float() * config.steps).long().clamp(max=config.steps - 1)
    return levels[:, 0] if config.levels == "clip" else levels


def draw_noise(seed: int, purpose: str, numbers: range, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of `shape` for each clip number, each a function of (seed, purpose, number)."""
    return torch.stack([torch.randn(shape, generator=generator(seed, purpose, n)) for n in numbers])


def loss(
    network: Callable[..., Tensor],
    process: Process,
    clean: Tensor,
    noise: Tensor,
    levels: Tensor,
    lengths: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the prediction, one number per clip, over real frames only: (clips,)."""
    prediction = network(process.add_noise(clean, noise, levels), levels, lengths)
    error = (prediction.float() - process.target(clean, noise, levels)).square().mean((2, 3, 4))
    if lengths is None:
        return error.mean(1)
    real = torch.arange(clean.shape[1], device=clean.device) < lengths[:, None]
    return (error * real).sum(1) / lengths
