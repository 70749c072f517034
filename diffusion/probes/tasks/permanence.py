"""Is what is hidden still there?  A ball passes behind an occluder; asked is where it is while it cannot be seen."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.probes.task import Best, Knob, Sequences, Task, uniform

_CELLS = 16
_TURN = 0.05  # chance of turning round at a step


class Probe(Task):
    """A ball on a line of 16 cells moves one cell a frame, turns at the ends and now and then by chance.

    The cells in the middle are hidden.  Frames are pictures of the line, with noise in every pixel; while the ball is
    hidden, its place is asked for, as a picture without noise.  It is a hidden Markov chain over (cell, direction), so
    the best answers are the probabilities of the hidden cells, given that the ball is behind them: by the forward
    algorithm from the past, by forward and backward from all frames, which know where it came out again.
    """

    question = "where is the ball while nobody sees it?"
    knob = Knob("hidden cells", (4, 8, 12), 8)
    noises = Knob("noise", (0.1, 0.3, 0.6), 0.1)
    steps = 800

    @property
    def variance(self) -> float:
        # Of a picture that is 1 in one of n cells, about its mean, 1 / n everywhere.
        return 1 - 1 / self.level

    def num_normals(self, frames: int) -> int:
        return frames * (1 + _CELLS) + 1

    def made(self, normals: Tensor, frames: int) -> Sequences:
        turns, start, noise = normals.split([frames, 1, frames * _CELLS], dim=1)
        moves = _moves()
        state = (uniform(start[:, 0]) * 2 * _CELLS).long()
        states = []
        for chance in uniform(turns).unbind(1):
            states.append(state)
            state = torch.where(chance < _TURN, moves[1][state], moves[0][state])
        cell = torch.stack(states, 1) % _CELLS
        picture = torch.nn.functional.one_hot(cell, _CELLS).double()
        hidden = self._hidden()
        shown = picture * ~hidden + self.noise * noise.unflatten(1, (frames, _CELLS))
        return Sequences(shown.float(), picture.float(), hidden[cell])

    def answers(self, sequences: Sequences) -> Best:
        evidence = self._evidence(sequences.inputs.double())
        stay = torch.zeros(2 * _CELLS, 2 * _CELLS, dtype=torch.float64)
        for target, chance in zip(_moves(), (1 - _TURN, _TURN), strict=True):
            stay[torch.arange(2 * _CELLS), target] += chance
        forward = [evidence[:, 0].softmax(1)]
        for now in evidence[:, 1:].unbind(1):
            forward.append((forward[-1] @ stay).log().add(now).softmax(1))
        backward = [torch.ones_like(forward[-1])]
        for later in evidence[:, 1:].flip(1).unbind(1):
            message = (later.softmax(1) * backward[-1]) @ stay.T
            backward.append(message / message.sum(1, keepdim=True))
        past = torch.stack(forward, 1)
        return Best(self._behind(past), self._behind(past * torch.stack(backward[::-1], 1)))

    def _evidence(self, shown: Tensor) -> Tensor:
        """Log-likelihood of every state, up to a constant: (b, t, states); a hidden ball leaves no trace."""
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
    """The next state of every state, going on and turning round; a state is cell + 16 x (1 if leftwards)."""
    cell = torch.arange(_CELLS)
    right, left = cell + 1, cell - 1
    going_right = torch.where(right < _CELLS, right, left + _CELLS)
    going_left = torch.where(left >= 0, left + _CELLS, right)
    return torch.cat([going_right, going_left]), torch.cat([going_left, going_right])
