"""Does the mixer use the future?  It estimates a noisy random walk, against the best causal filter and smoother."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task
from diffusion.probes.tasks._walk import Walk


class Probe(Task):
    """Every frame shows an Ornstein-Uhlenbeck walk with noise; the probe asks for the walk without noise.

    The best error is s^2 / (1 + s^2) given the present frame only, the error of the Kalman filter given the past, and
    the error of the smoother given all frames.  A causal layer cannot be better than the filter; a bidirectional layer
    should reach an error below it.
    """

    question = "where was the walk, given noisy observations?"
    knob = Knob("correlation", (0.5, 0.9, 0.97), 0.9)
    noises = Knob("noise", (0.5, 1.0, 2.0), 1.0)

    @property
    def channels(self) -> tuple[str, ...]:
        return ("value",)

    def num_normals(self, frames: int) -> int:
        return 2 * frames

    def make_sequences(self, normals: Tensor, frames: int) -> Sequences:
        x, y = self._walk(frames).sample(normals)
        return Sequences(y[..., None].float(), x[..., None].float(), torch.ones_like(x, dtype=torch.bool))

    def answers(self, sequences: Sequences) -> Best:
        best = self._walk(sequences.inputs.shape[1]).estimates(sequences.inputs[..., 0])
        return Best(best.past[..., None], best.whole[..., None])

    def bounds(self, frames: int) -> tuple[float, float]:
        variances = self._walk(frames).variances()
        return variances.past.mean().item(), variances.whole.mean().item()

    def _walk(self, frames: int) -> Walk:
        return Walk(self.level, self.noise, torch.ones(frames, dtype=torch.bool))
