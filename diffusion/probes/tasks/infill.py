"""Does it bind both ends?  A walk is shown at its start and its end, and asked in between."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task
from diffusion.probes.tasks._walk import Walk


class Probe(Task):
    """A slow Ornstein-Uhlenbeck walk is shown in its first and last frames, and asked in the gap between.

    Who sees the past alone can only let the last sighting fade; who sees both ends can build a bridge between them.
    Inputs are what is seen, 0 in the gap, and a flag that says whether the frame is shown.
    """

    question = "where was the walk between its two ends?"
    knob = Knob("gap", (8, 16, 24), 24)
    noises = Knob("noise", (0.1, 0.3, 1.0), 0.1)

    @property
    def channels(self) -> tuple[str, ...]:
        return ("value", "shown")

    def num_normals(self, frames: int) -> int:
        return 2 * frames

    def made(self, normals: Tensor, frames: int) -> Sequences:
        walk = self._walk(frames)
        x, y = walk.made(normals)
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
