"""The definition of `selective_scan`: the recurrence, frame by frame, in differentiable torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.selective_scan import Direction

NEEDS = None
CONFIRMED = "torch"
# It loops over the frames in Python: too slow to be timed beside other backends.
LOOPS = True


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def run(
    directions: Sequence[Direction],
    gate: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
):
    """The op itself, in plain torch."""
    first = directions[0].u
    dtype = torch.promote_types(first.dtype, torch.float32)
    starts = [None] * len(directions) if initial is None else initial
    sweeps = [_sweep(each, start, lengths, dtype) for each, start in zip(directions, starts, strict=True)]
    y = torch.stack([y for y, _ in sweeps]).sum(0)
    if gate is not None:
        y = y * silu(fill_padding(gate.to(dtype), lengths))
    # y is zero there already, but gradients from padded frames must be stopped.
    y = fill_padding(y, lengths).to(first.dtype)
    return (y, tuple(final for _, final in sweeps)) if return_final else y


def _sweep(
    direction: Direction, start: Tensor | None, lengths: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    u, dt, B, C = (fill_padding(x.to(dtype), lengths) for x in (direction.u, direction.dt, direction.B, direction.C))
    A = direction.A.to(dtype)
    delta = softplus(dt if direction.dt_bias is None else dt + direction.dt_bias.to(dtype))
    # A step of length zero does not change the state.
    delta = fill_padding(delta, lengths)
    h = u.new_zeros(u.shape[0], *A.shape) if start is None else start.to(dtype)
    # unbind and not indices: the gradient of each index would fill a whole tensor with zeros, once per frame.
    steps = list(zip(u.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), strict=True))
    ys = []
    for u_t, delta_t, B_t, C_t in reversed(steps) if direction.reverse else steps:
        h = torch.exp(delta_t[:, :, None] * A) * h + (delta_t * u_t)[:, :, None] * B_t[:, None, :]
        ys.append((h * C_t[:, None, :]).sum(-1))
    y = torch.stack(ys[::-1] if direction.reverse else ys, 1)
    return (y if direction.skip is None else y + direction.skip.to(dtype) * u), h
