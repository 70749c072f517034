"""The definition of `selective_block`: projections, convolution and scan, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import linear

from temporal_zoo.ops.causal_conv import causal_conv
from temporal_zoo.ops.selective_block import Affine, Branch
from temporal_zoo.ops.selective_scan import selective_scan


def run(x: Tensor, in_proj: Affine, branches: Sequence[Branch], out_proj: Affine, lengths: Tensor | None) -> Tensor:
    """The op itself, in plain torch."""
    a, z = linear(x, *in_proj).chunk(2, dim=-1)
    us = causal_conv(a, [branch.filter for branch in branches], silu=True, lengths=lengths)
    directions = [branch.direction(u, *branch.project(u)) for branch, u in zip(branches, us, strict=True)]
    return linear(selective_scan(directions, z, lengths=lengths), *out_proj)
