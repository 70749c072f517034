"""The custom operator `temporal_zoo::selective_block`: projections around backends of `causal_conv` and
`selective_scan`, and a gradient that recomputes the inputs of the scan.

The scan runs without its gate, which is applied here, so that the sum of the scans is the only large tensor to store.
Forward and backward take one block of rows at a time: intermediate tensors exist for one block only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops._dispatch import note
from temporal_zoo.ops._planning import device_type
from temporal_zoo.ops._register import register
from temporal_zoo.ops.causal_conv import causal_conv
from temporal_zoo.ops.selective_block import Affine, Branch
from temporal_zoo.ops.selective_scan import Direction, selective_scan

_TENSORS = tuple(field.name for field in fields(Branch) if field.name != "reverse")
# Elements of the largest tensors of a block: few enough for a CPU's caches, or enough to fill a GPU.  Rows: enough for
# the threads of a CPU.
_CACHED, _FILLING = 2**18, 2**25
_LEAST_ROWS = 32


def choose(x: Tensor, branches: Sequence[Branch], lengths: Tensor | None) -> tuple[str, str]:
    """The backends of `causal_conv` and `selective_scan` for these inputs."""
    a = _stand_in(x, branches[0].A.shape[0], working_dtype(x))
    conv = causal_conv.choose(a, [branch.filter for branch in branches], silu=True, lengths=lengths)
    return conv, selective_scan.choose([_direction_like(a, branch) for branch in branches], lengths=lengths)


def run(
    conv: str,
    scan: str,
    x: Tensor,
    in_proj: Affine,
    branches: Sequence[Branch],
    out_proj: Affine,
    lengths: Tensor | None,
) -> Tensor:
    """`selective_block` by these backends of `causal_conv` and `selective_scan`."""
    note(causal_conv.name, conv)
    note(selective_scan.name, scan)
    ends = [*_without_none(in_proj), *_without_none(out_proj)]
    parameters = ends + [getattr(branch, name) for branch in branches for name in _TENSORS]
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters))
    reverse = [branch.reverse for branch in branches]
    y, _ = _forward(x.to(working_dtype(x)), parameters, reverse, lengths, conv, scan, keep)
    return y


def _without_none(affine: Affine) -> Affine:
    """The same with an empty tensor for a missing bias, because lists of operators cannot hold None."""
    return affine if affine.bias is not None else Affine(affine.weight, affine.weight.new_empty(0))


def _with_none(weight: Tensor, bias: Tensor) -> Affine:
    return Affine(weight, bias if bias.numel() else None)


def _stand_in(x: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """A tensor (rows, frames, channels) that takes no memory."""
    return x.new_empty((), dtype=dtype).expand(*x.shape[:2], channels)


def _direction_like(a: Tensor, branch: Branch) -> Direction:
    states = _stand_in(a, branch.A.shape[1], a.dtype)
    return Direction(a, a, branch.A, states, states, branch.skip, branch.dt_bias, branch.reverse)


@dataclass(frozen=True, eq=False)
class _Layer:
    """The parameters, and the modules of the chosen backends."""

    inputs: Affine  # the half of in_proj that goes through convolution and scan
    gates: Affine  # the other half
    out_proj: Affine
    branches: list[Branch]
    conv: ModuleType
    scan: ModuleType

    @classmethod
    def make(cls, parameters: list[Tensor], reverse: list[bool], conv: str, scan: str) -> _Layer:
        """From the arguments of the operator."""
        w_in, b_in, w_out, b_out, *tensors = parameters
        size = len(_TENSORS)
        named = [dict(zip(_TENSORS, tensors[size * i : size * (i + 1)], strict=True)) for i in range(len(reverse))]
        inputs, gates = (_with_none(*halves) for halves in zip(w_in.chunk(2), b_in.chunk(2), strict=True))
        return cls(
            inputs,
            gates,
            _with_none(w_out, b_out),
            [Branch(**each, reverse=backwards) for each, backwards in zip(named, reverse, strict=True)],
            import_module(f"temporal_zoo.ops.causal_conv.{conv}"),
            import_module(f"temporal_zoo.ops.selective_scan.{scan}"),
        )

    @property
    def inner(self) -> int:
        """Channels between the projections."""
        return self.branches[0].A.shape[0]

    def keeps(self, x: Tensor) -> list[Tensor]:
        """Empty tensors to store: the sum of the scans, and those of the scan's backend; rows are the first axis."""
        a = _stand_in(x, self.inner, x.dtype)
        between = self.scan.keeps([_direction_like(a, branch) for branch in self.branches], None)
        return [x.new_empty(a.shape), *between]

    def blocks(self, x: Tensor) -> Iterator[slice]:
        """The rows of each block."""
        rows, frames, _ = x.shape
        budget = _CACHED if device_type(x) == "cpu" else _FILLING
        size = max(_LEAST_ROWS, budget // max(1, frames * self.inner))
        return (slice(first, first + size) for first in range(0, rows, size))

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of the convolution, and the gates."""
        return linear(x, *_like(x, self.inputs)), linear(x, *_like(x, self.gates))

    def convolution(self, a: Tensor, lengths: Tensor | None) -> tuple:
        """The arguments of the backends of `causal_conv`."""
        filters = [branch.filter for branch in self.branches]
        weights, biases, reverse = ([getattr(f, name) for f in filters] for name in ("weight", "bias", "reverse"))
        return a, weights, biases, [], lengths, reverse, True


def _compute(
    x: Tensor,
    parameters: list[Tensor],
    reverse: list[bool],
    lengths: Tensor | None,
    conv: str,
    scan: str,
    keep: bool,
) -> tuple[Tensor, list[Tensor]]:
    layer = _Layer.make(parameters, reverse, conv, scan)
    y = _new_output(x, layer)
    kept = layer.keeps(x) if keep else []
    for rows in layer.blocks(x):
        y[rows], parts = _forward_block(layer, x[rows], None if lengths is None else lengths[rows], keep)
        for whole, part in zip(kept, parts, strict=True):
            whole[rows] = part
    return y, kept


def _fake(x, parameters, reverse, lengths, conv, scan, keep):
    layer = _Layer.make(parameters, reverse, conv, scan)
    return _new_output(x, layer), layer.keeps(x) if keep else []


def _gradients(
    dy: Tensor,
    x: Tensor,
    parameters: list[Tensor],
    reverse: list[bool],
    lengths: Tensor | None,
    conv: str,
    scan: str,
    kept: list[Tensor],
) -> list[Tensor]:
    layer = _Layer.make(parameters, reverse, conv, scan)
    dx = x.new_empty(x.shape)
    totals = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    for rows in layer.blocks(x):
        real = None if lengths is None else lengths[rows]
        dx[rows], grads = _backward_block(layer, dy[rows], x[rows], real, [whole[rows] for whole in kept])
        for total, grad in zip(totals, grads, strict=True):
            total += grad
    return [dx, *(total.to(p.dtype) for total, p in zip(totals, parameters, strict=True))]


def _forward_block(layer: _Layer, x: Tensor, lengths: Tensor | None, keep: bool) -> tuple[Tensor, list[Tensor]]:
    """One block of y, and of the tensors to store."""
    a, z = layer.project_in(x)
    us = layer.conv.forward(*layer.convolution(a, lengths))
    directions = [b.direction(u, *b.project(u)) for b, u in zip(layer.branches, us, strict=True)]
    total, _, between = layer.scan.forward(directions, None, lengths, [], return_final=False, keep=keep)
    y = linear(silu(z).mul_(total), *_like(x, layer.out_proj))
    return y, [total, *between] if keep else []


def _backward_block(
    layer: _Layer, dy: Tensor, x: Tensor, lengths: Tensor | None, kept: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The gradient of a block of x, and the block's part of the gradients of the parameters, in their order."""
    total, *between = kept
    a, z = layer.project_in(x)
    gate = silu(z)
    gated = gate * total
    dgated, *dout = _through(layer.out_proj, dy, gated)
    dtotal = gate.mul_(dgated)

    convolution = layer.convolution(a, lengths)
    us = layer.conv.forward(*convolution)
    projected = [branch.project(u) for branch, u in zip(layer.branches, us, strict=True)]
    directions = [b.direction(u, *parts) for b, u, parts in zip(layer.branches, us, projected, strict=True)]
    ddirections, _, _ = layer.scan.backward(dtotal, [], directions, None, lengths, [], between)
    dus, dcores = [], []
    for branch, u, (steps, _, _), d in zip(layer.branches, us, projected, ddirections, strict=True):
        dsteps, d_dt_proj, _ = _through(Affine(branch.dt_proj), d.dt, steps)
        du, d_x_proj, _ = _through(Affine(branch.x_proj), torch.cat([dsteps, d.B, d.C], dim=-1), u)
        dus.append(du.add_(d.u))
        dcores.append([d_x_proj, d_dt_proj, d.dt_bias, d.A, d.skip])
    da, *dfilters = layer.conv.backward(dus, *convolution)

    dz = torch.ops.aten.silu_backward(dgated.mul_(total), z)
    dx, *dinputs = _through(layer.inputs, da, x)
    dx_by_gates, *dgates = _through(layer.gates, dz, x)
    din = [torch.cat(halves) for halves in zip(dinputs, dgates, strict=True)]
    count = len(layer.branches)
    dtensors = [d for i in range(count) for d in (dfilters[i], dfilters[count + i], *dcores[i])]
    return dx.add_(dx_by_gates), [*din, *dout, *dtensors]


def _through(affine: Affine, dy: Tensor, x: Tensor) -> list[Tensor]:
    """The gradients of x, of the weight and of the bias (empty if there is none)."""
    tokens, inputs, weight = dy.flatten(0, 1), x.flatten(0, 1), affine.weight.to(dy.dtype)
    dbias = tokens.new_empty(0) if affine.bias is None else tokens.sum(0)
    if weight.shape[0] <= weight.shape[1]:
        return [dy @ weight, tokens.mT @ inputs, dbias]
    # The transposed products: for the few columns of `dt_proj`, BLAS takes a fifth of the time.
    return [linear(dy, weight.mT.contiguous()), (inputs.mT @ tokens).mT, dbias]


def _like(x: Tensor, affine: Affine) -> Affine:
    """The same in the dtype of x."""
    return Affine(affine.weight.to(x.dtype), None if affine.bias is None else affine.bias.to(x.dtype))


def _new_output(x: Tensor, layer: _Layer) -> Tensor:
    return x.new_empty(*x.shape[:2], layer.out_proj.weight.shape[0])


_forward, _ = register(
    _compute,
    _gradients,
    fake=_fake,
    outputs=("y", "kept"),
    gradients={"dy": "y"},
    differentiable=("x", "parameters"),
    references=("causal_conv", "selective_scan"),
)
