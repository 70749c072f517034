"""Measures of motion that need no network: curves of a clip, and the energy distance between two sets of curves.

These measures use greyscale clips in [0, 1], g(t, y, x).  Letters: t frames, h height, w width, k numbers of a curve.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffusion.clip import from_uint8

LEAST_FRAMES = 4
_GREY = (0.299, 0.587, 0.114)


def grey(clip: Tensor) -> Tensor:
    """Converts (t, c, h, w) uint8, or floats in [-1, 1], to (t, h, w) float32 in [0, 1]."""
    values = (from_uint8(clip) if clip.dtype == torch.uint8 else clip.float()) / 2 + 0.5
    return values[:, 0] if values.shape[1] == 1 else torch.einsum("tchw,c->thw", values, torch.tensor(_GREY))


def change(g: Tensor) -> Tensor:
    """Frame difference over time: root mean square of g(t+1) - g(t), in eight equal parts of the clip."""
    steps = (g[1:] - g[:-1]).square().mean((1, 2)).sqrt()
    return torch.stack([part.mean() for part in torch.tensor_split(steps, min(8, len(steps)))])


def spectrum(g: Tensor) -> Tensor:
    """log10 of the temporal power spectrum of pixels without frequency 0, in at most 16 bands of equal width."""
    power = torch.fft.rfft(g - g.mean(0), dim=0).abs().square().mean((1, 2))[1:] / len(g)
    return torch.stack([part.mean() for part in torch.tensor_split(power, min(16, len(power)))]).add(1e-8).log10()


def lags(g: Tensor) -> Tensor:
    """Root mean square difference of frames that are 1, 2, 4, ... apart."""
    steps = [2**power for power in range(len(g)) if 2**power < len(g)]
    return torch.stack([(g[lag:] - g[:-lag]).square().mean().sqrt() for lag in steps])


def flicker(g: Tensor) -> Tensor:
    """Root mean square of the second difference g(t+1) - 2 g(t) + g(t-1); small for smooth motion."""
    return (g[2:] - 2 * g[1:-1] + g[:-2]).square().mean().sqrt()[None]


def recurrence(g: Tensor) -> Tensor:
    """Distance of each frame in the second half to the nearest frame at least a quarter of the clip before it.

    Returns the quartiles of these distances, in units of the clip's median distance of frames; small if a place is seen
    again.
    """
    flat = g.flatten(1)
    distances = torch.cdist(flat, flat)
    numbers = torch.arange(len(g))
    early = numbers[:, None] - numbers[None] >= max(1, len(g) // 4)
    nearest = distances.masked_fill(~early, torch.inf)[len(g) // 2 :].min(1).values
    median = distances[numbers[:, None] > numbers[None]].median().clamp(min=1e-6)
    return torch.quantile(nearest / median, torch.tensor([0.25, 0.5, 0.75]))


# The names in tables.
CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "change": change,
    "spectrum": spectrum,
    "lags": lags,
    "flicker": flicker,
    "recurrence": recurrence,
}


def curves(clip: Tensor) -> dict[str, np.ndarray]:
    """Computes all curves of one clip, (k,) float64 each."""
    g = grey(clip)
    return {name: curve(g).double().numpy() for name, curve in CURVES.items()}


class Energy:
    """Energy distances of subsets of two sets of curves; unbiased, so it can be negative.

        E = 2 mean |x - y| - mean |x - x'| - mean |y - y'|,   pairs of different clips

    (Szekely and Rizzo, 2013), where |.| is the Euclidean distance of curves.  Each number of a curve is divided by its
    standard deviation over the real clips.
    """

    def __init__(self, real: np.ndarray, fake: np.ndarray) -> None:
        spread = real.std(0).clip(1e-9)
        both = torch.from_numpy(np.concatenate([real, fake]) / spread)
        # Without matrix products, because these do not give exactly zero for equal curves.
        self._distances = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        self._num_real = len(real)

    def __call__(self, real: np.ndarray, fake: np.ndarray) -> float:
        """The distance between a subset of the real clips and one of the fake clips, given as indices."""
        return self.between(real, fake + self._num_real)

    def between(self, first: np.ndarray, second: np.ndarray) -> float:
        """The distance of two disjoint subsets, given as indices over the real and then the fake clips."""
        across = self._distances[np.ix_(first, second)].mean()
        return float(2 * across - self._within(first) - self._within(second))

    def _within(self, some: np.ndarray) -> float:
        return self._distances[np.ix_(some, some)].sum() / (len(some) * (len(some) - 1))
