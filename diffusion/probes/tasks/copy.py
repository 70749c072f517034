"""Can the mixer select and remember?  It repeats a few marked values at the end, in order."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task


class Probe(Task):
    """The frames show values, and some of them have a mark; the last frames ask for the marked values in their order.

    This is the selective copying of Mamba (arXiv 2312.00752, section 3.1) with real values and noise.  The best answer
    is y / (1 + s^2) with error s^2 / (1 + s^2), and it depends only on the past.  Inputs are the value (0 in the last
    frames), the mark, and the request.
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

    def make_sequences(self, normals: Tensor, frames: int) -> Sequences:
        items = int(self.level)
        values, noise, order = normals.chunk(3, dim=1)
        # The frames with the largest independent random numbers are a random choice of frames.
        marked = order.topk(items, dim=1).indices.sort(dim=1).values
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
        # A stable sort of the marks puts marked frames first and keeps their order.
        marked = marks.sort(dim=1, descending=True, stable=True).indices[:, :items]
        answers = torch.zeros_like(seen)
        answers[:, -items:] = seen.gather(1, marked) / (1 + self.noise**2)
        return Best(answers[..., None], answers[..., None])

    def bounds(self, frames: int) -> tuple[float, float]:
        error = self.noise**2 / (1 + self.noise**2)
        return error, error
