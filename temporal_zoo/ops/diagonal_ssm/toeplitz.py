"""One batched product with a Toeplitz matrix per channel; two directions fill its two halves and cost one product.

The work grows with frames^2, but for short rows it is less than in the other methods: there is no Fourier transform, no
complex tensor of the size of the rows, and thousands of rows share the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.diagonal_ssm import _kernel, _operator
from temporal_zoo.ops.diagonal_ssm.reference import precision

NEEDS = None
CONFIRMED = "torch"
# For more frames `chunked` does less work.
MOST_FRAMES = 96
# Elements of a block on a CPU: the copies for the product fit in its cache.  Fewer rows would not pay for the matrix.
BLOCK, FEWEST_ROWS = 1 << 18, 16

run = partial(_operator.run, "toeplitz")


def refuses(u, directions, skip=None, *, lengths=None, initial=None, return_final=False) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    reasons = []
    if u.shape[1] > MOST_FRAMES:
        reasons.append(f"takes up to {MOST_FRAMES} frames, u has {u.shape[1]}")
    if initial is not None and any(state is not None for state in initial):
        reasons.append("takes no initial states")
    if return_final:
        reasons.append("has no final states")
    return reasons


def forward(u, a, c, skips, initials, lengths, reverse, with_final) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    y = u.new_empty(u.shape)
    if u.numel() == 0:
        return [y]
    matrix = _matrix(u, _tables(u, a), c, skips, reverse)
    for rows in blocks(u):
        real = None if lengths is None else lengths[rows]
        channels_last(y[rows], torch.bmm(channels_first(u[rows], real), matrix), real)
    return [y]


def backward(grads, u, a, c, skips, initials, lengths, reverse, with_final) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    if u.numel() == 0:
        return [torch.zeros_like(tensor) for tensor in (u, *a, *c, *skips)]
    tables = _tables(u, a)
    matrix = _matrix(u, tables, c, skips, reverse)
    du, dmatrix = u.new_empty(u.shape), torch.zeros_like(matrix)
    for rows in blocks(u):
        real = None if lengths is None else lengths[rows]
        dy = channels_first(grads[0][rows].to(u.dtype), real)
        channels_last(du[rows], torch.bmm(dy, matrix.mT), real)
        dmatrix.baddbmm_(channels_first(u[rows], real).mT, dy)
    dboth = _kernel.through_toeplitz(dmatrix)
    da, dc = [], []
    for table, factor, readout, backwards in zip(tables, a, c, reverse, strict=True):
        dtable, dreadout = _kernel.through_taps(table, readout, _kernel.one_side(dboth, backwards))
        da.append(_kernel.through_powers(table, dtable).to(factor.dtype))
        dc.append(dreadout.to(readout.dtype))
    return [du, *da, *dc, *(dboth[:, u.shape[1] - 1].to(skip.dtype).contiguous() for skip in skips)]


def _tables(u: Tensor, a: list[Tensor]) -> list[Tensor]:
    return [_kernel.powers(factor, u.shape[1]) for factor in a]


def _matrix(u: Tensor, tables: list[Tensor], c: list[Tensor], skips: list[Tensor], reverse: list[bool]) -> Tensor:
    kernels = [_kernel.taps(table, readout) for table, readout in zip(tables, c, strict=True)]
    return _kernel.toeplitz(_kernel.two_sided(kernels, reverse, skips)).to(precision(u)[0])


def blocks(u: Tensor) -> Iterator[slice]:
    """One block of all rows on a GPU, several blocks on a CPU."""
    rows, frames, channels = u.shape
    size = rows if u.is_cuda else max(FEWEST_ROWS, BLOCK // max(1, frames * channels))
    return (slice(first, first + size) for first in range(0, rows, max(1, size)))


def channels_first(u: Tensor, lengths: Tensor | None) -> Tensor:
    """(rows, frames, channels) -> contiguous (channels, rows, frames) in the dtype of sums, zero at padded frames."""
    flat = fill_padding(u, lengths).flatten(0, 1)
    # Only two axes are transposed, which torch does in tiles.
    return flat.new_empty(flat.shape[::-1], dtype=precision(u)[0]).copy_(flat.t()).unflatten(1, u.shape[:2])


def channels_last(y: Tensor, product: Tensor, lengths: Tensor | None) -> None:
    """Writes the inverse of `channels_first` into `y`, with zero at padded frames."""
    y.flatten(0, 1).copy_(product.flatten(1).t())
    if lengths is not None:
        y.copy_(fill_padding(y, lengths))
