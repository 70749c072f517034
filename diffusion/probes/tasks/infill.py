"""Does the mixer use both ends?  It sees the start and the end of a walk, and estimates the walk between."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task
from diffusion.probes.tasks._walk import Walk


class Probe(Task):
    """The first and last frames show a slow Ornstein-Uhlenbeck walk; the probe asks for the walk in the gap.

    Given the past only, the best estimate decays from the last observation towards zero; given both ends, it
    interpolates between them.  Inputs are the observation, 0 in the gap, and a flag for observed frames.
    """

    question = "where was the walk between its two ends?"
    knob = Knob("gap", (8, 16, 24), 24)
    noises = Knob("noise", (0.1, 0.3, 1.0), 0.1)

    @property
    def channels(self) -> tuple[str, ...]:
        return ("value", "shown")

    def num_normals(self, frames: int) -> int:
        return 2 * frames

    def make_sequences(self, normals: Tensor, frames: int) -> Sequences:
        walk = self._walk(frames)
        x, y = walk.sample(normals)
        inputs = torch.stack([y, walk.shown.expand_as(y)], 2)
        return Sequences(inputs.float(), x[..., None].float(), ~walk.shown.expand_as(y))

    def answers(self, sequences: Sequences) -> Best:
        best = self._walk(sequences.inputs.shape[1]).estimates(sequences.inputs[..., 0])
        return Best(best.past[..., None], best.whole[..., None])

    def bounds(self, frames: int) -> tuple[float, float]:
        walk = self._walk(frames)
        variances = walk.variances()
        return variances.past[~walk.shown].mean().item(), variances.whole[~walk.shown].mean().item()

    def _walk(self, frames: int) -> Walk:
        start = (frames - int(self.level)) // 2
        shown = torch.ones(frames, dtype=torch.bool)
        shown[start : start + int(self.level)] = False
        return Walk(0.97, self.noise, shown)
