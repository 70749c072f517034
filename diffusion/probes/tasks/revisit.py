"""Does it remember places?  A walk through rooms, each with a value in it, and then a walk back through them."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task, uniform

_TURN = 0.25  # chance of turning round at a step


class Probe(Task):
    """Rooms lie in a ring, each with a value; a walker sees the value of its room, and later only where it is.

    In the first half the value is shown, behind new noise at every visit; in the second half the walker goes on, and
    wherever it comes to a room that it knows, the value is asked for.  With m sightings the best answer is their sum
    over m + s^2, and its error s^2 / (m + s^2); all of it is in the past.  Inputs are the room, one of n, what is seen
    of its value (0 in the second half), and a flag that says whether it is shown.
    """

    question = "what was in this room, when it was last seen?"
    knob = Knob("rooms", (4, 8, 16), 4)
    noises = Knob("noise", (0.1, 0.5, 1.0), 0.1)
    steps = 800

    @property
    def channels(self) -> tuple[str, ...]:
        return (*(f"room {number}" for number in range(int(self.level))), "value", "shown")

    def num_normals(self, frames: int) -> int:
        return int(self.level) + 2 * frames + 1

    def made(self, normals: Tensor, frames: int) -> Sequences:
        rooms = int(self.level)
        values, turns, noise, start = normals.split([rooms, frames, frames, 1], dim=1)
        direction = torch.where(uniform(turns) < _TURN, -1, 1).cumprod(1)
        place = (direction.cumsum(1) + (uniform(start) * rooms).long()) % rooms  # (b, t)
        value = values.gather(1, place)
        shown = (torch.arange(frames) < frames // 2).expand_as(place)
        room = torch.nn.functional.one_hot(place, rooms).double()
        known = (room * shown[..., None]).sum(1).gather(1, place) > 0
        inputs = torch.cat([room, torch.stack([(value + self.noise * noise) * shown, shown.double()], 2)], 2)
        return Sequences(inputs.float(), value[..., None].float(), known & ~shown)

    def answers(self, sequences: Sequences) -> Best:
        room, seen, shown = sequences.inputs.double().split([int(self.level), 1, 1], dim=2)
        sums, sightings = (room * seen).sum(1), (room * shown).sum(1)  # (b, rooms)
        means = sums / (sightings + self.noise**2)
        answers = (room * means[:, None]).sum(2, keepdim=True)
        return Best(answers, answers)
