"""The whole selective layer of one or two directions, as one function that stores little for backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Names and not the module: the name `torch` may be a backend in a folder of an op.
from torch import Tensor
from torch.nn.functional import linear

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import REFERENCE
from temporal_zoo.ops._lengths import check_lengths
from temporal_zoo.ops.causal_conv import Filter
from temporal_zoo.ops.selective_scan import PLAIN, Direction

__all__ = ["Affine", "Branch", "rehearsals", "selective_block"]


class Affine(NamedTuple):
    """x -> weight x + bias: `weight` (outputs, inputs), `bias` (outputs,) or None."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Branch:
    """The parameters of one direction: its convolution, and the projections that control its recurrence.

    Args:
        conv_weight: (inner, width), as of a `causal_conv.Filter`.
        conv_bias: (inner,).
        x_proj: (rank + 2 state, inner), from the convolved input to the steps, B and C.
        dt_proj: (inner, rank), from the projected steps to the steps of every channel.
        dt_bias: (inner,).
        A: (inner, state), negative.
        skip: (inner,), the weight of the convolved input in the output.
        reverse: run from the last real frame to the first.
    """

    conv_weight: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    A: Tensor
    skip: Tensor
    reverse: bool = False

    @property
    def filter(self) -> Filter:
        """The input of `causal_conv`."""
        return Filter(self.conv_weight, self.conv_bias, self.reverse)

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The steps (rows, frames, rank), B and C (rows, frames, state) of the convolved input u."""
        rank, state = self.dt_proj.shape[1], self.A.shape[1]
        steps, B, C = linear(u, self.x_proj.to(u.dtype)).split((rank, state, state), dim=-1)
        return steps, B, C

    def direction(self, u: Tensor, steps: Tensor, B: Tensor, C: Tensor) -> Direction:
        """The input of `selective_scan`, from u and its projections."""
        dt = linear(steps, self.dt_proj.to(steps.dtype))
        return Direction(u, dt, self.A, B, C, self.skip, self.dt_bias, self.reverse)


def selective_block(
    x: Tensor, in_proj: Affine, branches: Sequence[Branch], out_proj: Affine, *, lengths: Tensor | None = None
) -> Tensor:
    """The layer of Mamba (arXiv:2312.00752, figure 3), with one or two directions between its projections.

        a, z = in_proj x;  per branch: u = silu(conv a),  steps, B, C = x_proj u,  dt = dt_proj steps
        y = out_proj( silu(z) sum over branches of S6(u, dt, A, B, C) )

    A training step stores x, the sum over the branches, and the states that the backend of the scan stores.  Backward
    recomputes everything else, except the scan.

    The function has no backends of its own.  `causal_conv` and `selective_scan` choose theirs, and pins apply.  If one
    of them chooses its reference or another backend in plain torch, this function is the plain composition, and can be
    differentiated as often as its parts.

    Args:
        x: (rows, frames, dim), any float dtype; finite, at padded frames too.
        in_proj: dim -> 2 inner.
        branches: one or two.
        out_proj: inner -> outputs.
        lengths: (rows,) int64, each in 1..frames: the first lengths[i] frames of row i are real; None when all are.
            A padded frame's y is the bias of `out_proj`; padded frames do not affect others.
    Returns:
        (rows, frames, outputs) in the dtype of x, or in that of autocast.
    Raises:
        InvalidInput: shapes that do not match, or no frames.
        BackendError: a pinned backend cannot run these inputs.
    Gradients: of every tensor but `lengths`.
    """
    from temporal_zoo.ops.selective_block import _operator, reference

    if x.ndim != 3 or not x.is_floating_point():
        raise InvalidInput(f"x is {tuple(x.shape)} of {x.dtype}; it must be (rows, frames, dim) of a float dtype")
    inner = in_proj.weight.shape[0] // 2
    if in_proj.weight.shape != (2 * inner, x.shape[2]):
        raise InvalidInput(
            f"the weight of in_proj is {tuple(in_proj.weight.shape)}; it must be (2 inner, {x.shape[2]})"
        )
    for branch in branches:
        if branch.conv_weight.shape[0] != inner or branch.A.shape[0] != inner:
            raise InvalidInput(f"a branch has {branch.conv_weight.shape[0]} channels; in_proj has {inner}")
    check_lengths(x, lengths)
    conv, scan = _operator.choose(x, branches, lengths)
    if conv == REFERENCE or scan in PLAIN:
        return reference.run(x, in_proj, branches, out_proj, lengths)
    return _operator.run(conv, scan, x, in_proj, branches, out_proj, lengths)


def rehearsals() -> dict[str, Callable[..., object]]:
    """Registered operator -> a function of its arguments that allocates and frees, on the meta device, what it does.

    A count of bytes needs it, because tensors that live inside an operator only are not visible from outside.
    """
    from temporal_zoo.ops.selective_block._rehearsal import REHEARSALS

    return REHEARSALS
