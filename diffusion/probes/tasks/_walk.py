"""A random walk of a scalar around zero, observed with noise in some frames, and its best estimates.

    x[0] ~ N(0, 1),  x[t] = rho x[t-1] + sqrt(1 - rho^2) e[t]        Ornstein-Uhlenbeck, sampled; variance 1 throughout
    y[t] = x[t] + s n[t]  where observed                             e, n ~ N(0, 1), independent

All variables are Gaussian, so the best estimate is the conditional mean and its error is the conditional variance,
which does not depend on y.  Given y up to t: Kalman filter.  Given all y:
Rauch-Tung-Striebel smoother (AIAA J. 3, 1965).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.probes.task import Best


@dataclass(frozen=True)
class Walk:
    """rho: correlation of neighbouring frames.  noise: s.  shown: (t,) bool, the frames in which y is observed."""

    rho: float
    noise: float
    shown: Tensor

    def sample(self, normals: Tensor) -> tuple[Tensor, Tensor]:
        """x and y, (b, t) each, from standard normal numbers (b, 2 t); y is 0 where it is not observed."""
        steps, noise = normals.chunk(2, dim=1)
        x = [steps[:, 0]]
        for step in steps[:, 1:].unbind(1):
            x.append(self.rho * x[-1] + math.sqrt(1 - self.rho**2) * step)
        walk = torch.stack(x, 1)
        return walk, (walk + self.noise * noise) * self.shown

    def variances(self) -> Best:
        """Conditional variance of x[t], (t,) float64 each."""
        _, filtered, predicted = self._gains()
        smoothed = list(filtered)
        for t in reversed(range(len(smoothed) - 1)):
            back = self.rho * filtered[t] / predicted[t + 1]
            smoothed[t] = filtered[t] + back**2 * (smoothed[t + 1] - predicted[t + 1])
        return Best(torch.tensor(filtered, dtype=torch.float64), torch.tensor(smoothed, dtype=torch.float64))

    def estimates(self, y: Tensor) -> Best:
        """Conditional means of x[t], (b, t) float64 each, given y (b, t)."""
        gains, filtered, predicted = self._gains()
        y = y.double()
        means: list[Tensor] = []
        for t, gain in enumerate(gains):
            expected = self.rho * means[-1] if means else torch.zeros_like(y[:, 0])
            means.append(expected + gain * (y[:, t] - expected))
        smoothed = list(means)
        for t in reversed(range(len(means) - 1)):
            back = self.rho * filtered[t] / predicted[t + 1]
            smoothed[t] = means[t] + back * (smoothed[t + 1] - self.rho * means[t])
        return Best(torch.stack(means, 1), torch.stack(smoothed, 1))

    def _gains(self) -> tuple[list[float], list[float], list[float]]:
        """Kalman gain, variance given y[t], and variance before y[t], for every frame."""
        gains, after, before = [], [], []
        variance = 1.0
        for shown in self.shown.tolist():
            before.append(variance)
            gains.append(variance / (variance + self.noise**2) if shown else 0.0)
            after.append((1 - gains[-1]) * variance)
            variance = self.rho**2 * after[-1] + 1 - self.rho**2
        return gains, after, before
