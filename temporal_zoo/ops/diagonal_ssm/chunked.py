"""Chunk by chunk: a Toeplitz product within a chunk; the states of the modes connect the chunks.

The work is linear in frames, and the op's initial and final states are supported.  With h the state before a
chunk of k frames (after it, under `reverse`):

    y = u M + h E,  E: h -> 2 Re sum_n c_n a_n^(j+1) h_n at frame j
    h' = a^k h + u S,  S: u -> sum_j a^(k-1-j) u[j]

States are pairs of real numbers here, so that all of these are real matrix products.  A shorter last chunk uses corners
of the same matrices.  Letters: c channels, r rows, j frames of a chunk, m = 2 n real numbers of a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops.diagonal_ssm import _kernel, _operator
from temporal_zoo.ops.diagonal_ssm.reference import precision
from temporal_zoo.ops.diagonal_ssm.toeplitz import blocks, channels_first, channels_last

NEEDS = None
CONFIRMED = "torch"
CHUNK = 64

run = partial(_operator.run, "chunked")


def refuses(u, directions, skip=None, *, lengths=None, initial=None, return_final=False) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    # Rows that end at different frames would each need other powers for the state that enters or leaves there.
    if lengths is None:
        return []
    reasons = []
    if return_final:
        reasons.append("has no final states of rows with lengths")
    if initial is not None and any(state is not None for state in initial):
        reasons.append("takes no initial states for rows with lengths")
    return reasons


def forward(u, a, c, skips, initials, lengths, reverse, with_final) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    y = u.new_empty(u.shape)
    finals = [u.new_empty(u.shape[0], *modes.shape, dtype=precision(u)[1]) for modes in a] if with_final else []
    plan = _Plan.make(u, a, c, skips, reverse)
    for rows in blocks(u):
        real = None if lengths is None else lengths[rows]
        inputs = channels_first(u[rows], real)
        outputs = plan.within(inputs)
        for i, way in enumerate(plan.ways):
            last = plan.carry(way, inputs, _start(initials, i, rows), outputs)[-1]
            if with_final:
                finals[i][rows] = _as_states(last)
        channels_last(y[rows], outputs, real)
    return [y, *finals]


def backward(grads, u, a, c, skips, initials, lengths, reverse, with_final) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    dy, *dfinals = grads
    du, dinitials = u.new_empty(u.shape), [state.new_empty(state.shape) for state in initials]
    plan = _Plan.make(u, a, c, skips, reverse)
    dmatrix = torch.zeros_like(plan.matrix)
    for rows in blocks(u):
        real = None if lengths is None else lengths[rows]
        inputs, g = channels_first(u[rows], real), channels_first(dy[rows].to(u.dtype), real)
        dinputs = plan.through_within(g, inputs, dmatrix)
        for i, way in enumerate(plan.ways):
            states = plan.carry(way, inputs, _start(initials, i, rows))
            end = _as_pairs(dfinals[i][rows]) if with_final else torch.zeros_like(states[-1])
            dstart = plan.through_carry(way, inputs, states, g, end, dinputs)
            if initials:
                dinitials[i][rows] = _as_states(dstart).to(dinitials[i].dtype)
        channels_last(du[rows], dinputs, real)
    dboth = _kernel.through_toeplitz(dmatrix)
    gradients_of_ways = [way.gradients(_kernel.one_side(dboth, way.reverse)) for way in plan.ways]
    da = [d.to(factor.dtype) for (d, _), factor in zip(gradients_of_ways, a, strict=True)]
    dc = [d.to(readout.dtype) for (_, d), readout in zip(gradients_of_ways, c, strict=True)]
    dskips = [dboth[:, plan.size - 1].to(skip.dtype).contiguous() for skip in skips]
    return [du, *da, *dc, *dskips, *dinitials]


def _start(initials: list[Tensor], i: int, rows: slice) -> Tensor | None:
    return _as_pairs(initials[i][rows]) if initials else None


def _as_pairs(states: Tensor) -> Tensor:
    """Complex (r, c, n) -> real (c, r, m)."""
    return torch.view_as_real(states.resolve_conj().transpose(0, 1).contiguous()).flatten(2)


def _as_states(pairs: Tensor) -> Tensor:
    """Real (c, r, m) -> complex (r, c, n)."""
    return torch.view_as_complex(pairs.unflatten(2, (-1, 2))).transpose(0, 1)


@dataclass
class _Way:
    """One direction's matrices for a chunk of full size, and the sums of their gradients."""

    reverse: bool
    readout: Tensor  # c, (c, n)
    table: Tensor  # a^0 .. a^size, (c, n, size + 1) complex128
    write: Tensor  # E transposed, (c, j, m)
    read: Tensor  # S, (c, j, m)
    dtable: Tensor
    dwrite: Tensor
    dread: Tensor

    @classmethod
    def make(cls, a: Tensor, c: Tensor, reverse: bool, size: int, dtype: torch.dtype) -> _Way:
        table = _kernel.powers(a, size + 1)
        c = c.to(table.dtype)
        # Re(w h) is the product of the pairs of conj(w) and of h.
        write = (2 * c.unsqueeze(-1) * table[..., 1:]).conj()
        read = table[..., :size].flip(-1)
        E, S = (
            torch.view_as_real((w.flip(-1) if reverse else w).mT.resolve_conj()).flatten(2).to(dtype).contiguous()
            for w in (write, read)
        )
        return cls(reverse, c, table, E, S, *(torch.zeros_like(each) for each in (table, E, S)))

    def corner(self, size: int) -> tuple[slice, slice]:
        """The frames of E and of S that a chunk of `size` frames uses."""
        first, last = slice(0, size), slice(self.read.shape[1] - size, None)
        return (last, first) if self.reverse else (first, last)

    def factor(self, size: int) -> Tensor:
        """a^size, complex (c, 1, n)."""
        return self.table[..., size].unsqueeze(1)

    def gradients(self, dtaps: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of a and c, from the gradient of the taps and the sums of `through_carry`."""
        dtable = self.dtable.clone()
        from_taps, dreadout = _kernel.through_taps(self.table[..., :-1], self.readout, dtaps)
        dwrite, dread = (torch.view_as_complex(d.double().unflatten(2, (-1, 2))).mT for d in (self.dwrite, self.dread))
        if self.reverse:
            dwrite, dread = dwrite.flip(-1), dread.flip(-1)
        dtable[..., :-1] += from_taps + dread.flip(-1)
        dtable[..., 1:] += 2 * self.readout.conj().unsqueeze(-1) * dwrite.conj()
        dreadout = dreadout + 2 * (self.table[..., 1:].conj() * dwrite.conj()).sum(-1)
        return _kernel.through_powers(self.table, dtable), dreadout


@dataclass
class _Plan:
    """The matrices of a call: one for the frames within a chunk, and some per direction for the state."""

    matrix: Tensor  # M, (c, j, j)
    ways: list[_Way]
    chunks: list[slice]

    @classmethod
    def make(cls, u: Tensor, a: list[Tensor], c: list[Tensor], skips: list[Tensor], reverse: list[bool]) -> _Plan:
        frames, dtype = u.shape[1], precision(u)[0]
        size = max(1, min(CHUNK, frames))
        ways = [_Way.make(*way, size, dtype) for way in zip(a, c, reverse, strict=True)]
        kernels = [_kernel.taps(way.table[..., :-1], way.readout) for way in ways]
        matrix = _kernel.toeplitz(_kernel.two_sided(kernels, reverse, skips)).to(dtype)
        return cls(matrix, ways, [slice(first, min(first + size, frames)) for first in range(0, frames, size)])

    @property
    def size(self) -> int:
        return self.matrix.shape[-1]

    def within(self, inputs: Tensor) -> Tensor:
        """u M of every chunk: (c, r, t) -> (c, r, t)."""
        outputs = torch.empty_like(inputs)
        for chunk in self.chunks:
            part = inputs[..., chunk]
            outputs[..., chunk] = torch.bmm(part, self._matrix(part.shape[-1]))
        return outputs

    def through_within(self, g: Tensor, inputs: Tensor, dmatrix: Tensor) -> Tensor:
        """g M^T of every chunk; adds to the gradient of M."""
        dinputs = torch.empty_like(g)
        for chunk in self.chunks:
            part, size = g[..., chunk], g[..., chunk].shape[-1]
            dinputs[..., chunk] = torch.bmm(part, self._matrix(size).mT)
            dmatrix[:, :size, :size] += torch.bmm(inputs[..., chunk].mT, part)
        return dinputs

    def carry(self, way: _Way, inputs: Tensor, start: Tensor | None, outputs: Tensor | None = None) -> list[Tensor]:
        """The states before every chunk in the order of the sweep and after the last; adds h E to `outputs`."""
        dtype = inputs.dtype
        zero = inputs.new_zeros(*inputs.shape[:2], way.read.shape[-1])
        states = [zero if start is None else start.to(dtype)]
        for chunk in self._sweep(way):
            part = inputs[..., chunk]
            writing, reading = way.corner(part.shape[-1])
            if outputs is not None:
                outputs[..., chunk] += torch.bmm(states[-1], way.write[:, writing].mT)
            decayed = _times(states[-1], way.factor(part.shape[-1]))
            states.append(torch.baddbmm(decayed, part, way.read[:, reading]))
        return states

    def through_carry(
        self, way: _Way, inputs: Tensor, states: list[Tensor], g: Tensor, dstate: Tensor, dinputs: Tensor
    ) -> Tensor:
        """Walks `carry` backwards from the gradient of its last state to that of its first.

        Adds to `dinputs` and to the gradients of the direction's matrices.
        """
        for chunk, before in zip(reversed(self._sweep(way)), reversed(states[:-1]), strict=True):
            part, gpart = inputs[..., chunk], g[..., chunk]
            size = part.shape[-1]
            writing, reading = way.corner(size)
            dinputs[..., chunk] += torch.bmm(dstate, way.read[:, reading].mT)
            way.dread[:, reading] += torch.bmm(part.mT, dstate)
            way.dwrite[:, writing] += torch.bmm(gpart.mT, before)
            way.dtable[..., size] += (_as_complex(before).conj() * _as_complex(dstate)).sum(1)
            decayed = _times(dstate, way.factor(size).conj())
            dstate = torch.baddbmm(decayed, gpart, way.write[:, writing])
        return dstate

    def _matrix(self, size: int) -> Tensor:
        return self.matrix[:, :size, :size]

    def _sweep(self, way: _Way) -> list[slice]:
        return self.chunks[::-1] if way.reverse else self.chunks


def _as_complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.unflatten(-1, (-1, 2)))


def _times(pairs: Tensor, factor: Tensor) -> Tensor:
    """A complex product, on pairs (c, r, m) and a complex factor (c, 1, n)."""
    state = _as_complex(pairs)
    return torch.view_as_real(state * factor.to(state.dtype)).flatten(-2)
