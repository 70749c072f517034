"""The selective scan by mamba_ssm's CUDA kernel: one call per direction, gated outside.

The kernel needs frames innermost and runs forward in time only, so inputs are transposed, and flipped for a reverse
direction.  `backward` runs it again, because it would store more for its own backward than its inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import silu

from temporal_zoo.ops._dispatch import why_absent
from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops._planning import plan_of
from temporal_zoo.ops.selective_scan import Direction
from temporal_zoo.ops.selective_scan._operator import Filled, scan

NEEDS = "mamba_ssm"
CONFIRMED = None
run = functools.partial(scan, "mamba_ssm")

_LARGEST_STATE = 256
# A step before softplus whose softplus is exactly zero, so that a padded frame does not change the state.
_NO_STEP = -1e4


def refuses(
    directions: Sequence[Direction],
    gate: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    u = directions[0].u
    reasons = []
    if u.device.type != "cuda":
        reasons.append(f"it runs on CUDA only, and u is on {u.device}")
    if plan_of(u) is None and (absent := why_absent("selective_scan_cuda")):
        reasons.append(f"{absent}; mamba_ssm was built without the kernel of Mamba 1 (MAMBA_KEEP_CUDA_BUILD=TRUE)")
    if u.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        reasons.append(f"it has no {u.dtype}")
    if any(each.A.shape[1] > _LARGEST_STATE for each in directions):
        reasons.append(f"it has at most {_LARGEST_STATE} states")
    if initial is not None and any(start is not None for start in initial):
        reasons.append("it starts from a zero state only")
    if return_final:
        reasons.append("its final state has no gradient")
    return reasons


def keeps(directions: Sequence[Direction], gate: Tensor | None) -> list[Tensor]:
    """See `_operator`."""
    return []


def forward(directions, gate, lengths, initial, *, return_final, keep):
    """See `_operator` for what a backend takes and returns."""
    total = torch.stack([_restore(each, _call(*_arguments(each, lengths))).float() for each in directions]).sum(0)
    if gate is not None:
        total *= silu(fill_padding(gate.float(), lengths))
    return total.to(directions[0].u.dtype), [], []


def backward(grad_y, grad_finals, directions, gate, lengths, initial, kept):
    """See `_operator` for what a backend takes and returns."""
    grad_y = grad_sum = fill_padding(grad_y.float(), lengths)
    if gate is not None:
        z = fill_padding(gate.float(), lengths)
        grad_sum = grad_y * silu(z)
    total, gradients = torch.zeros_like(grad_y), []
    for each in directions:
        arguments = [x.detach().requires_grad_() for x in _arguments(each, lengths)]
        # Inside an operator autograd records only custom functions, and the kernel is one.
        with torch.enable_grad():
            y = _call(*arguments)
        total += _restore(each, y.detach()).float()
        grads = torch.autograd.grad(y, arguments, _lay_out(each, grad_sum, y.dtype))
        gradients.append(_gradients(each, grads))
    if gate is None:
        return gradients, None, []
    sigmoid = torch.sigmoid(z)
    grad_gate = grad_y * total * sigmoid * (1 + z * (1 - sigmoid))
    return gradients, grad_gate.to(gate.dtype), []


def _call(*arguments: Tensor) -> Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, dt, A, B, C, skip, dt_bias = arguments
    return selective_scan_fn(u, dt, A, B, C, D=skip, delta_bias=dt_bias, delta_softplus=True)


def _arguments(direction: Filled, lengths: Tensor | None) -> list[Tensor]:
    dtype = direction.u.dtype
    u, B, C = (_lay_out(direction, fill_padding(x, lengths), dtype) for x in (direction.u, direction.B, direction.C))
    dt = _lay_out(direction, fill_padding(direction.dt, lengths, _NO_STEP), dtype)
    A, skip, dt_bias = (x.float().contiguous() for x in (direction.A, direction.skip, direction.dt_bias))
    return [u, dt, A, B, C, skip, dt_bias]


def _gradients(direction: Filled, grads: Sequence[Tensor]) -> Direction:
    u, dt, A, B, C, skip, dt_bias = grads
    u, dt, B, C = (_restore(direction, grad) for grad in (u, dt, B, C))
    return Direction(
        u.to(direction.u.dtype),
        dt.to(direction.dt.dtype),
        A.to(direction.A.dtype),
        B.to(direction.B.dtype),
        C.to(direction.C.dtype),
        skip.to(direction.skip.dtype),
        dt_bias.to(direction.dt_bias.dtype),
    )


def _lay_out(direction: Filled, x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.to(dtype).mT
    return (x.flip(2) if direction.reverse else x).contiguous()


def _restore(direction: Filled, x: Tensor) -> Tensor:
    return (x.flip(2) if direction.reverse else x).mT.contiguous()
