"""The selective scan by mamba_ssm's CUDA kernel as its users call it, inside plain torch.

Every direction is laid out for the kernel, run, flipped back and gated separately.  Autograd stores what each of these
steps needs, and the kernel stores its inputs and one state per 2,048 frames.  arXiv 2403.07711 and Vim call it in this
way.  It stores more than the backend `mamba_ssm` and takes the same inputs, so `auto` never chooses it: it exists for
measurements and plans.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import silu

from temporal_zoo.ops.selective_scan import Direction, mamba_ssm

NEEDS = "mamba_ssm"
CONFIRMED = None

_FRAMES_PER_STATE = 2048


def refuses(
    directions: Sequence[Direction],
    gate: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    reasons = mamba_ssm.refuses(directions, gate, lengths=lengths, initial=initial, return_final=return_final)
    return reasons if lengths is None else [*reasons, "it takes no lengths"]


def run(
    directions: Sequence[Direction],
    gate: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
) -> Tensor:
    """The op itself, in plain torch around the kernel."""
    open_ = None if gate is None else silu(gate)
    total = None
    for each in directions:
        u, dt, B, C = (_laid_out(x, each.reverse) for x in (each.u, each.dt, each.B, each.C))
        y = _restored(_kernel(u, dt, each.A, B, C, each.skip, each.dt_bias), each.reverse)
        y = y if open_ is None else y * open_
        total = y if total is None else total + y
    assert total is not None
    return total


def _laid_out(x: Tensor, reverse: bool) -> Tensor:
    x = x.mT
    return (x.flip(2) if reverse else x).contiguous()


def _restored(y: Tensor, reverse: bool) -> Tensor:
    return (y.flip(2) if reverse else y).mT


def _kernel(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor | None, dt_bias: Tensor | None
) -> Tensor:
    if u.is_meta:
        return _Planned.apply(u, dt, A, B, C, skip, dt_bias)
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(u, dt, A, B, C, D=skip, delta_bias=dt_bias, delta_softplus=True)


class _Planned(torch.autograd.Function):
    """What the kernel returns and stores, on the meta device."""

    @staticmethod
    def forward(ctx, *inputs):
        u, A = inputs[0], inputs[2]
        rows, channels, frames = u.shape
        states = u.new_empty(rows, channels, -(-frames // _FRAMES_PER_STATE), 2 * A.shape[1], dtype=torch.float32)
        ctx.save_for_backward(*inputs, states)
        return u.new_empty(u.shape)

    @staticmethod
    def backward(ctx, *grads):
        *inputs, _ = ctx.saved_tensors
        return tuple(None if x is None else x.new_empty(x.shape) for x in inputs)
