"""The convolution in Triton: one launch forward and one backward for all filters; kernels in `_triton_kernels`.

The kernels are tested in Triton's interpreter and compiled for sm_80 and sm_90; none has run on hardware yet.

It is written for many short rows, as the scan: frame by frame with the last inputs in registers, without atomics;
backward recomputes the input of SiLU.  With `TRITON_INTERPRET=1`, set before the first call, it takes CPU tensors and
is slow.
"""

from __future__ import annotations

from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from temporal_zoo.ops import _triton
from temporal_zoo.ops.causal_conv import _operator

NEEDS = "triton"
CONFIRMED = None
run = partial(_operator.run, "triton")

# A window of more inputs does not fit in the registers.
_MOST_TAPS = 8


def refuses(x, filters, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    reasons = _triton.refuses("x", x)
    if (taps := max([0, *(each.weight.shape[1] for each in filters)])) > _MOST_TAPS:
        reasons.append(f"takes at most {_MOST_TAPS} taps; a filter has {taps}")
    return reasons


def forward(x, weights, biases, initials, lengths, reverse, silu) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    kernels, x = _kernels(), _adjacent(x)
    rows, frames, channels = x.shape
    block = _block(x)
    ys = [_triton.empty(x, lengths) for _ in weights]
    filters = _filters(kernels, weights, biases, initials, ys, reverse)
    arguments = filters, x, _triton.contiguous(lengths), frames, *x.stride()[:2]
    constants = {"count": len(filters), "channels": channels, "silu": silu, "BLOCK": block, "num_warps": 1}
    _triton.launch(kernels.forward, rows * -(-channels // block), x.device, *arguments, **constants)
    return ys


def backward(dys, x, weights, biases, initials, lengths, reverse, silu) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    kernels, x = _kernels(), _adjacent(x)
    rows, frames, channels = x.shape
    block = _block(x)
    blocks = -(-channels // block)
    rows_per_program = max(1, -(-rows * blocks // _triton.MOST_PROGRAMS))
    groups = -(-rows // rows_per_program)
    dx = _triton.empty(x, lengths)

    def partial_sums(*shape: int) -> Tensor:
        return x.new_empty((groups, *shape), dtype=torch.float32)

    gradients = tuple(
        kernels.FilterGradientArguments(
            weight=partial_sums(weight.shape[1], channels),
            bias=partial_sums(channels) if biases else None,
            initial=initials[place].new_empty(initials[place].shape) if initials else None,
        )
        for place, weight in enumerate(weights)
    )
    filters = _filters(kernels, weights, biases, initials, [dy.contiguous() for dy in dys], reverse)
    arguments = filters, gradients, x, dx, _triton.contiguous(lengths), rows, rows_per_program, frames, *x.stride()[:2]
    constants = {"count": len(filters), "channels": channels, "silu": silu, "BLOCK": block, "num_warps": 1}
    _triton.launch(kernels.backward, groups * blocks, x.device, *arguments, **constants)
    pairs = list(zip(weights, gradients, strict=True))
    dweights = [grads.weight.sum(0).mT.to(weight.dtype).contiguous() for weight, grads in pairs]
    dbiases = [grads.bias.sum(0).to(bias.dtype) for bias, grads in zip(biases, gradients, strict=False)]
    return [dx, *dweights, *dbiases, *(grads.initial for grads in gradients if initials)]


def _kernels() -> ModuleType:
    # A function, because importing the kernels imports Triton.
    from temporal_zoo.ops.causal_conv import _triton_kernels

    return _triton_kernels


def _filters(kernels: ModuleType, weights, biases, initials, ys, reverse) -> tuple:
    from triton.language import constexpr

    return tuple(
        kernels.FilterArguments(
            weight=weight.mT.float().contiguous(),
            bias=biases[place].contiguous() if biases else None,
            initial=initials[place].contiguous() if initials else None,
            y=ys[place],
            width=constexpr(weight.shape[1]),
            reverse=constexpr(reverse[place]),
        )
        for place, weight in enumerate(weights)
    )


def _block(x: Tensor) -> int:
    """Channels per program: eight bytes per lane, so that enough loads are in flight."""
    import triton

    return min(256 // x.element_size(), max(32, triton.next_power_of_2(x.shape[2])))


def _adjacent(x: Tensor) -> Tensor:
    """x with adjacent channels and offsets of rows within 32 bits; a slice of channels is not copied."""
    fits = x.stride(2) == 1 and x.shape[1] * x.stride(1) < 2**31
    return x if fits else x.contiguous()
