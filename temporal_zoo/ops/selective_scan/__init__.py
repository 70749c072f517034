"""The selective scan of Mamba, for one or two directions at once, gated; see `selective_scan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Names and not the module: the backend `torch` beside this file would take the name `torch` here.
from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import op
from temporal_zoo.ops._lengths import check_lengths

__all__ = ["PLAIN", "Direction", "selective_scan"]

# Backends that are plain torch, without the registered operator.
PLAIN = ("reference", "mamba_ssm_plain")


@dataclass(frozen=True, eq=False)
class Direction:
    """Inputs of one direction of a selective scan; any float dtypes, any strides.

    Args:
        u: (rows, frames, channels), the input.
        dt: (rows, frames, channels), the step before bias and softplus.
        A: (channels, state), negative.
        B: (rows, frames, state).
        C: (rows, frames, state).
        skip: (channels,), the weight of u in the output (D in the paper), or None for zero.
        dt_bias: (channels,), or None for zero.
        reverse: run from the last real frame to the first.
    """

    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    skip: Tensor | None = None
    dt_bias: Tensor | None = None
    reverse: bool = False


@op("triton", "mamba_ssm", "mamba_ssm_plain", "cpu", "torch", "reference")
def selective_scan(
    directions: Sequence[Direction],
    gate: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    initial: Sequence[Tensor | None] | None = None,
    return_final: bool = False,
):
    """Runs one or two selective state space recurrences over the frames, and gates their sum.

        delta = softplus(dt + dt_bias)
        h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t]        (h[t+1] instead of h[t-1] where `reverse`)
        y = silu(gate) sum over directions (C[t] h[t] + skip u[t])

    arXiv:2312.00752, equation 2, with A discretised by zero-order hold and B by one Euler step, as in its kernels.
    The state is float32 for all inputs (float64 for float64), under autocast too.

    Args:
        directions: one or two `Direction`, of the same rows, frames and channels; the sizes of their states may differ.
        gate: (rows, frames, channels), or None for an ungated sum.
        lengths: (rows,) int64, each in 1..frames: the first lengths[i] frames of row i are real; None when all are.
            A padded frame does not change the state, its y is zero, and no value or gradient depends on its input.
        initial: per direction the state (rows, channels, state) before the first frame it visits, or None for zero.
        return_final: also return the states after the last frame that each direction visits.
    Returns:
        y: (rows, frames, channels), dtype of the first direction's u;
        with `return_final` the pair (y, final), final a tuple of one (rows, channels, state) float32 per direction.
    Raises:
        InvalidInput: shapes, dtypes or devices that do not match, or no frames.
        BackendError: the pinned backend cannot run these inputs; the message lists why.
    Gradients: of y and final, with respect to every tensor but `lengths`; twice only through `reference`.
    """
    if not 1 <= len(directions) <= 2:
        raise InvalidInput(f"selective_scan runs one or two directions, not {len(directions)}")
    first = directions[0].u
    if first.ndim != 3:
        raise InvalidInput(f"u is {tuple(first.shape)}; expected (rows, frames, channels)")
    check_lengths(first, lengths)
    rows, frames, channels = first.shape
    starts = [None] * len(directions) if initial is None else initial
    if len(starts) != len(directions):
        raise InvalidInput(
            f"initial has {len(starts)} entries for {len(directions)} directions; give one each, or None"
        )
    if directions[-1].u.dtype != first.dtype:
        raise InvalidInput(f"the directions differ in the dtype of u: {first.dtype} and {directions[-1].u.dtype}")
    for index, (direction, start) in enumerate(zip(directions, starts, strict=True)):
        if direction.A.ndim != 2 or not direction.A.shape[1]:
            raise InvalidInput(f"direction {index}: A is {tuple(direction.A.shape)}; expected (channels, state)")
        state = direction.A.shape[1]
        for name, value, shape in (
            ("u", direction.u, (rows, frames, channels)),
            ("dt", direction.dt, (rows, frames, channels)),
            ("A", direction.A, (channels, state)),
            ("B", direction.B, (rows, frames, state)),
            ("C", direction.C, (rows, frames, state)),
            ("skip", direction.skip, (channels,)),
            ("dt_bias", direction.dt_bias, (channels,)),
            ("initial", start, (rows, channels, state)),
        ):
            _require(f"direction {index}: {name}", value, shape, first)
    _require("gate", gate, (rows, frames, channels), first)


def _require(name: str, value: Tensor | None, shape: tuple[int, ...], like: Tensor) -> None:
    if value is None:
        return
    if value.shape != shape:
        raise InvalidInput(f"{name} is {tuple(value.shape)}; expected {tuple(shape)}")
    if not value.is_floating_point():
        raise InvalidInput(f"{name} is {value.dtype}; expected a real floating dtype")
    if value.device != like.device:
        raise InvalidInput(f"{name} is on {value.device}; expected {like.device}, where u is")
