"""Taps and Toeplitz matrices of modes, K[l] = 2 Re sum_n c_n a_n^l, and their gradients, written by hand.

Sizes are those of the parameters times a few dozen or hundred frames, and do not grow with the rows.  Everything is
computed in complex128: otherwise the powers of a rounded `a` would be the largest error of a backend.

Letters: c channels, n modes, l lags, s input frame, t output frame.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def powers(a: Tensor, count: int) -> Tensor:
    """(c, n) -> (c, n, count): a^0 .. a^(count - 1), by doubling, without logarithms (a may be zero)."""
    table = torch.ones_like(a, dtype=torch.complex128).unsqueeze(-1)
    step = a.to(torch.complex128).unsqueeze(-1)
    while table.shape[-1] < count:
        table, step = torch.cat([table, table * step], dim=-1), step * step
    return table[..., :count]


def through_powers(table: Tensor, dtable: Tensor) -> Tensor:
    """The gradient of `a`, (c, n), from that of its powers: d a^l / d a = l a^(l-1)."""
    lags = torch.arange(1, table.shape[-1], device=table.device)
    return (dtable[..., 1:] * (lags * table[..., :-1]).conj()).sum(-1)


def taps(table: Tensor, c: Tensor) -> Tensor:
    """K, (c, l) float64, from the powers (c, n, l) and the readout (c, n)."""
    return 2 * torch.einsum("cn,cnl->cl", c.to(table.dtype), table).real


def through_taps(table: Tensor, c: Tensor, dtaps: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the powers and of the readout from that of K."""
    doubled = (2 * dtaps).to(table.dtype)
    return doubled.unsqueeze(1) * c.to(table.dtype).conj().unsqueeze(-1), torch.einsum(
        "cl,cnl->cn", doubled, table.conj()
    )


def two_sided(kernels: list[Tensor], reverse: list[bool], skips: list[Tensor]) -> Tensor:
    """(c, 2 l - 1): the taps of all directions for lags t - s from -(l - 1) to l - 1; lag 0 also has the skips."""
    size = kernels[0].shape[-1]
    both = kernels[0].new_zeros(kernels[0].shape[0], 2 * size - 1)
    for kernel, backward in zip(kernels, reverse, strict=True):
        if backward:
            both[:, :size] += kernel.flip(-1)
        else:
            both[:, size - 1 :] += kernel
    for skip in skips:
        both[:, size - 1] += skip
    return both


def one_side(both: Tensor, reverse: bool) -> Tensor:
    """The part of one direction in a gradient of the result of `two_sided`: (c, l)."""
    size = (both.shape[-1] + 1) // 2
    return both[:, :size].flip(-1) if reverse else both[:, size - 1 :]


def toeplitz(both: Tensor) -> Tensor:
    """(c, 2 l - 1) -> (c, s, t): element (s, t) is the tap of lag t - s."""
    return both.unfold(-1, (both.shape[-1] + 1) // 2, 1).flip(1)


def through_toeplitz(dmatrix: Tensor) -> Tensor:
    """The gradient of `two_sided`'s result: sums over the diagonals, (c, s, t) -> (c, 2 l - 1) in float64."""
    size = dmatrix.shape[-1]
    # Rows of 2 l numbers, viewed as rows of 2 l - 1: each row shifts by one more, so that diagonals become columns.
    slipped = F.pad(dmatrix.double().flip(1), (0, size)).flatten(1)[:, : size * (2 * size - 1)]
    return slipped.unflatten(1, (size, 2 * size - 1)).sum(1)
