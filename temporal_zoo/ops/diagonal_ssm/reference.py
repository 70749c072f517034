"""The definition of `diagonal_ssm`: the recurrence, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.diagonal_ssm import Modes

NEEDS = None
CONFIRMED = "torch"
# It loops over the frames in Python: too slow to be timed beside other backends.
LOOPS = True


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def run(
    u: Tensor,
    directions: Sequence[Modes],
    skip: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
):
    """The op itself, in plain torch."""
    rows, frames, _ = u.shape
    real, complex_ = precision(u)
    inputs = fill_padding(u.to(real), lengths)
    y = torch.zeros_like(inputs) if skip is None else inputs * skip.to(real)
    finals = []
    for modes, state in zip(directions, initial or [None] * len(directions), strict=True):
        a, c = modes.a.to(complex_), modes.c.to(complex_)
        h = inputs.new_zeros(rows, *a.shape, dtype=complex_) if state is None else state.to(complex_)
        outputs: dict[int, Tensor] = {}
        for t in reversed(range(frames)) if modes.reverse else range(frames):
            stepped = a * h + inputs[:, t, :, None]
            h = stepped if lengths is None else torch.where((t < lengths)[:, None, None], stepped, h)
            outputs[t] = 2 * (c * h).real.sum(-1)
        y = y + torch.stack([outputs[t] for t in range(frames)], dim=1) if frames else y
        finals.append(h)
    y = fill_padding(y, lengths).to(u.dtype)
    return (y, tuple(finals)) if return_final else y


def precision(u: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """The dtypes of sums and of states."""
    return (torch.float64, torch.complex128) if u.dtype == torch.float64 else (torch.float32, torch.complex64)
