"""Does the mixer remember places?  It sees the values of rooms, and recalls them when it returns."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task, uniform

_TURN = 0.25  # probability of a turn at each step


class Probe(Task):
    """Rooms form a ring, each with a value; a walker sees first the values of its rooms, and later only the rooms.

    In the first half, each visit shows the value of the room with new noise.  In the second half, the walker continues,
    and the probe asks for the value of each room that it visited before.  After m observations the best answer is
    their sum divided by m + s^2, with error s^2 / (m + s^2); it depends only on the past.  Inputs are the room (one of
    n), the observed value (0 in the second half), and a flag for observed values.
    """

    question = "what was the value in this room?"
    knob = Knob("rooms", (4, 8, 16), 4)
    noises = Knob("noise", (0.1, 0.5, 1.0), 0.1)
    steps = 800

    @property
    def channels(self) -> tuple[str, ...]:
        return (*(f"room {number}" for number in range(int(self.level))), "value", "shown")

    def num_normals(self, frames: int) -> int:
        return int(self.level) + 2 * frames + 1

    def make_sequences(self, normals: Tensor, frames: int) -> Sequences:
        rooms = int(self.level)
        values, turns, noise, start = normals.split([rooms, frames, frames, 1], dim=1)
        direction = torch.where(uniform(turns) < _TURN, -1, 1).cumprod(1)
        position = (direction.cumsum(1) + (uniform(start) * rooms).long()) % rooms  # (b, t)
        value = values.gather(1, position)
        shown = (torch.arange(frames) < frames // 2).expand_as(position)
        room = torch.nn.functional.one_hot(position, rooms).double()
        known = (room * shown[..., None]).sum(1).gather(1, position) > 0
        inputs = torch.cat([room, torch.stack([(value + self.noise * noise) * shown, shown.double()], 2)], 2)
        return Sequences(inputs.float(), value[..., None].float(), known & ~shown)

    def answers(self, sequences: Sequences) -> Best:
        room, observed, shown = sequences.inputs.double().split([int(self.level), 1, 1], dim=2)
        sums, observations = (room * observed).sum(1), (room * shown).sum(1)  # (b, rooms)
        means = sums / (observations + self.noise**2)
        answers = (room * means[:, None]).sum(2, keepdim=True)
        return Best(answers, answers)
