"""Does the mixer track a hidden object?  It estimates the position of a ball behind an occluder."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task, uniform

_CELLS = 16
_TURN = 0.05  # probability of a turn at each step


class Probe(Task):
    """A ball on a line of 16 cells moves one cell per frame, and turns at the ends and sometimes at random.

    An occluder hides the cells in the middle.  Frames are images of the line with noise in every pixel; while the ball
    is hidden, the probe asks for its position, as an image without noise.  The ball is a hidden Markov chain over
    (cell, direction), so the best answers are the probabilities of the hidden cells, given that the ball is hidden:
    from the forward algorithm given the past, from the forward-backward algorithm given all frames.
    """

    question = "where is the ball while it is hidden?"
    knob = Knob("hidden cells", (4, 8, 12), 8)
    noises = Knob("noise", (0.1, 0.3, 0.6), 0.1)
    steps = 800

    @property
    def variance(self) -> float:
        # The variance of an image that is 1 in one of n cells, around its mean of 1 / n in each cell.
        return 1 - 1 / self.level

    def num_normals(self, frames: int) -> int:
        return frames * (1 + _CELLS) + 1

    def make_sequences(self, normals: Tensor, frames: int) -> Sequences:
        turns, start, noise = normals.split([frames, 1, frames * _CELLS], dim=1)
        moves = _moves()
        state = (uniform(start[:, 0]) * 2 * _CELLS).long()
        states = []
        for chance in uniform(turns).unbind(1):
            states.append(state)
            state = torch.where(chance < _TURN, moves[1][state], moves[0][state])
        cell = torch.stack(states, 1) % _CELLS
        image = torch.nn.functional.one_hot(cell, _CELLS).double()
        hidden = self._hidden()
        shown = image * ~hidden + self.noise * noise.unflatten(1, (frames, _CELLS))
        return Sequences(shown.float(), image.float(), hidden[cell])

    def answers(self, sequences: Sequences) -> Best:
        evidence = self._evidence(sequences.inputs.double())
        transition = torch.zeros(2 * _CELLS, 2 * _CELLS, dtype=torch.float64)
        for target, chance in zip(_moves(), (1 - _TURN, _TURN), strict=True):
            transition[torch.arange(2 * _CELLS), target] += chance
        forward = [evidence[:, 0].softmax(1)]
        for now in evidence[:, 1:].unbind(1):
            forward.append((forward[-1] @ transition).log().add(now).softmax(1))
        backward = [torch.ones_like(forward[-1])]
        for later in evidence[:, 1:].flip(1).unbind(1):
            message = (later.softmax(1) * backward[-1]) @ transition.T
            backward.append(message / message.sum(1, keepdim=True))
        past = torch.stack(forward, 1)
        return Best(self._behind(past), self._behind(past * torch.stack(backward[::-1], 1)))

    def _evidence(self, shown: Tensor) -> Tensor:
        """Log-likelihood of every state, up to a constant: (b, t, states); hidden cells show noise only."""
        seen = (shown - 0.5) / self.noise**2 * ~self._hidden()
        return torch.cat([seen, seen], 2)

    def _behind(self, states: Tensor) -> Tensor:
        """Probability of every cell, given that the ball is hidden: (b, t, states) -> (b, t, cells)."""
        cells = states.unflatten(2, (2, _CELLS)).sum(2) * self._hidden()
        return cells / cells.sum(2, keepdim=True).clamp(min=1e-300)

    def _hidden(self) -> Tensor:
        hidden, edge = torch.zeros(_CELLS, dtype=torch.bool), (_CELLS - int(self.level)) // 2
        hidden[edge : _CELLS - edge] = True
        return hidden


def _moves() -> tuple[Tensor, Tensor]:
    """The next state of every state, without and with a turn; a state is cell + 16 x (1 if it moves left)."""
    cell = torch.arange(_CELLS)
    right, left = cell + 1, cell - 1
    going_right = torch.where(right < _CELLS, right, left + _CELLS)
    going_left = torch.where(left >= 0, left + _CELLS, right)
    return torch.cat([going_right, going_left]), torch.cat([going_left, going_right])
