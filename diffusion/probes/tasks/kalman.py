"""What does seeing the future buy?  A wandering scalar behind noise: best causal filter, best smoother."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task
from diffusion.probes.tasks._walk import Walk


class Probe(Task):
    """An Ornstein-Uhlenbeck walk is seen through noise in every frame; asked is where it really was.

    The present alone leaves s^2 / (1 + s^2), the past as well what the Kalman filter leaves, the future too what the
    smoother leaves.  No causal layer can be better than the filter; one that sees the future has no excuse above it.
    """

    question = "where was the walk, seen through noise?"
    knob = Knob("correlation", (0.5, 0.9, 0.97), 0.9)
    noises = Knob("noise", (0.5, 1.0, 2.0), 1.0)

    @property
    def channels(self) -> tuple[str, ...]:
        return ("value",)

    def num_normals(self, frames: int) -> int:
        return 2 * frames

    def made(self, normals: Tensor, frames: int) -> Sequences:
        x, y = self._walk(frames).made(normals)
        return Sequences(y[..., None].float(), x[..., None].float(), torch.ones_like(x, dtype=torch.bool))

    def answers(self, sequences: Sequences) -> Best:
        best = self._walk(sequences.inputs.shape[1]).estimates(sequences.inputs[..., 0])
        return Best(best.past[..., None], best.whole[..., None])

    def bounds(self, frames: int) -> tuple[float, float]:
        variances = self._walk(frames).variances()
        return variances.past.mean().item(), variances.whole.mean().item()

    def _walk(self, frames: int) -> Walk:
        return Walk(self.level, self.noise, torch.ones(frames, dtype=torch.bool))
