"""Can it pick out and hold?  A few marked values among distractors, to be repeated at the end, in order."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task


class Probe(Task):
    """Values pass, some of them marked; in the last frames, the marked ones are asked for, in their order.

    The selective copying of Mamba (arXiv 2312.00752, section 3.1), with real values behind noise: the best answer is
    y / (1 + s^2), whose error is s^2 / (1 + s^2), and all of it is in the past.  Inputs are the value (0 where it is
    asked), the mark, and the request.
    """

    question = "what were the marked values, in their order?"
    knob = Knob("items", (1, 2, 4), 2)
    noises = Knob("noise", (0.1, 0.5, 1.0), 0.1)
    steps = 800

    @property
    def channels(self) -> tuple[str, ...]:
        return ("value", "mark", "request")

    def num_normals(self, frames: int) -> int:
        return 3 * (frames - int(self.level))

    def made(self, normals: Tensor, frames: int) -> Sequences:
        items = int(self.level)
        values, noise, lots = normals.chunk(3, dim=1)
        # The frames with the largest of independent numbers are a random choice of frames.
        marked = lots.topk(items, dim=1).indices.sort(dim=1).values
        b = len(values)
        marks = torch.zeros_like(values).scatter(1, marked, 1.0)
        nothing, request = torch.zeros(b, items, dtype=values.dtype), torch.ones(b, items, dtype=values.dtype)
        inputs = torch.stack(
            [torch.cat(pair, 1) for pair in (
                (values + self.noise * noise, nothing), (marks, nothing), (torch.zeros_like(values), request),
            )], 2,
        )  # fmt: skip
        targets = torch.cat([torch.zeros_like(values), values.gather(1, marked)], 1)
        return Sequences(inputs.float(), targets[..., None].float(), inputs[..., 2] > 0)

    def answers(self, sequences: Sequences) -> Best:
        items = int(self.level)
        seen, marks = sequences.inputs[..., 0].double(), sequences.inputs[..., 1]
        # Sorting marks is stable, so that marked frames come first and keep their order.
        marked = marks.sort(dim=1, descending=True, stable=True).indices[:, :items]
        answers = torch.zeros_like(seen)
        answers[:, -items:] = seen.gather(1, marked) / (1 + self.noise**2)
        return Best(answers[..., None], answers[..., None])

    def bounds(self, frames: int) -> tuple[float, float]:
        error = self.noise**2 / (1 + self.noise**2)
        return error, error
