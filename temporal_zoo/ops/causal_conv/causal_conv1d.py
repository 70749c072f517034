"""The CUDA kernel of the package causal-conv1d (causal filters of 2 to 4 taps, all frames real)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops.causal_conv import _operator

NEEDS = "causal_conv1d"
CONFIRMED = None
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

run = partial(_operator.run, "causal_conv1d")


def refuses(x, filters, *, silu=False, lengths=None, initial=None, return_final=False) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    weights = [taps.weight for taps in filters]
    reasons = []
    if not x.is_cuda:
        reasons.append(f"runs on CUDA only, x is on {x.device.type}")
    if any(taps.reverse for taps in filters):
        reasons.append("takes no reverse filters")
    if lengths is not None:
        reasons.append("takes no lengths")
    if any(not 2 <= weight.shape[1] <= 4 for weight in weights):
        reasons.append(f"takes 2 to 4 taps, a filter has {', '.join(str(w.shape[1]) for w in weights)}")
    if unsupported := {t.dtype for t in (x, *weights)} - set(DTYPES):
        reasons.append(f"takes float32, float16 and bfloat16, not {', '.join(map(str, unsupported))}")
    if any(taps.bias is not None and taps.bias.dtype != taps.weight.dtype for taps in filters):
        reasons.append("takes a bias of its weight's dtype only")
    if x.shape[2] % 8:
        reasons.append(f"takes a multiple of 8 channels, x has {x.shape[2]}")
    if x.numel() == 0:
        reasons.append("takes no empty inputs")
    return reasons


def forward(x, weights, biases, initials, lengths, reverse, silu) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    inputs = _channels_second(x)
    starts = [_channels_second(start.to(x.dtype)) for start in initials]
    return [
        _convolve(inputs, weight, biases[i] if biases else None, starts[i] if starts else None, silu)
        .transpose(1, 2)
        .contiguous()
        for i, weight in enumerate(weights)
    ]


def backward(dys, x, weights, biases, initials, lengths, reverse, silu) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    inputs = _channels_second(x)
    dx, dweights, dbiases, dinitials = torch.zeros_like(x, dtype=torch.float32), [], [], []
    for i, weight in enumerate(weights):
        leaves = [inputs, weight]
        leaves += [biases[i]] if biases else []
        leaves += [_channels_second(initials[i].to(x.dtype))] if initials else []
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        # The package's gradient is public only through its autograd function.
        with torch.enable_grad():
            bias, start = leaves[2] if biases else None, leaves[-1] if initials else None
            y = _convolve(leaves[0], leaves[1], bias, start, silu)
        grads = list(torch.autograd.grad(y, leaves, _channels_second(dys[i].to(x.dtype))))
        dx += grads[0].transpose(1, 2)
        dweights.append(grads[1].contiguous())
        dbiases += [grads[2].contiguous()] if biases else []
        dinitials += [grads[-1].transpose(1, 2).to(initials[i].dtype).contiguous()] if initials else []
    return [dx.to(x.dtype), *dweights, *dbiases, *dinitials]


def _channels_second(x: Tensor) -> Tensor:
    """(rows, frames, channels) as the (rows, channels, frames) with adjacent channels for the kernel."""
    return x.contiguous().transpose(1, 2)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor | None, silu: bool) -> Tensor:
    from causal_conv1d import causal_conv1d_fn

    return causal_conv1d_fn(x=x, weight=weight, bias=bias, initial_states=start, activation="silu" if silu else None)
