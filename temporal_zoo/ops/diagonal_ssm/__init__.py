"""Diagonal linear state space models (S4D) over the frames of a row, in one or two directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import op
from temporal_zoo.ops._lengths import check_lengths

__all__ = ["Modes", "diagonal_ssm"]


@dataclass(frozen=True)
class Modes:
    """One direction's modes per channel: factor `a` per frame and readout `c`, both complex (channels, modes).

    Each mode stands for itself and its conjugate.  |a| <= 1; otherwise states of long rows grow without bound.
    """

    a: Tensor
    c: Tensor
    reverse: bool = False


@op("cpu", "toeplitz", "chunked", "reference")
def diagonal_ssm(
    u: Tensor,
    directions: Sequence[Modes],
    skip: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
) -> None:
    """Runs the modes of every channel over the frames and sums the directions.

        h[t] = a h[t-1] + u[t];  y[t] = 2 Re sum_n c_n h_n[t] + skip u[t]

    with h[t+1] in place of h[t-1] under `reverse`.  Equivalently, y is u convolved with K[l] = 2 Re sum_n c_n
    a_n^l.  This is S4D (arXiv 2206.11893, section 3) with the input matrix folded into c.

    Args:
        u: (rows, frames, channels), any float dtype; sums are in float32 (float64 for float64 inputs).
        directions: one or more `Modes`, each with a number of modes of its own.
        skip: (channels,) or None, added once.
        lengths: (rows,) int64, each in 1..frames: how many frames are real, or None for all.  Later frames are not read
            (they may hold NaN), come out zero and do not change the state; a reverse direction starts at the last real
            frame.
        initial: per direction the state before its first frame, complex (rows, channels, modes), or None for zero.
        return_final: whether to return also the states after the last frame of each direction.
    Returns:
        y, (rows, frames, channels) in the dtype of u; with `return_final` a pair of y and a tuple of states, one
        complex (rows, channels, modes) per direction.
    Raises:
        InvalidInput: shapes that do not match, or no frames.
        BackendError: the pinned backend cannot run these inputs.
    Gradients: u, a, c, skip, initial; twice with the reference only.
    """
    if u.ndim != 3 or not u.is_floating_point():
        raise InvalidInput(f"u is {tuple(u.shape)} of {u.dtype}; it must be (rows, frames, channels) of a float dtype")
    if not directions:
        raise InvalidInput("diagonal_ssm got no directions; it takes one or more")
    rows, _, channels = u.shape
    for modes in directions:
        if modes.a.shape != modes.c.shape or modes.a.ndim != 2 or modes.a.shape[0] != channels:
            shapes = f"{tuple(modes.a.shape)} and {tuple(modes.c.shape)}"
            raise InvalidInput(f"a and c of a direction are {shapes}; both must be ({channels}, modes)")
        if not (modes.a.is_complex() and modes.c.is_complex()):
            raise InvalidInput(f"a and c of a direction are {modes.a.dtype} and {modes.c.dtype}; both must be complex")
    if skip is not None and skip.shape != (channels,):
        raise InvalidInput(f"skip is {tuple(skip.shape)}; it must be ({channels},)")
    check_lengths(u, lengths)
    if initial is not None:
        if len(initial) != len(directions):
            raise InvalidInput(f"initial has {len(initial)} entries for {len(directions)} directions")
        for state, modes in zip(initial, directions, strict=True):
            if state is not None and state.shape != (rows, *modes.a.shape):
                raise InvalidInput(f"an entry of initial is {tuple(state.shape)}; it must be {(rows, *modes.a.shape)}")
