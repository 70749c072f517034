"""The adaptor to mamba_ssm on a machine without its kernel: what it refuses, and its calls of a stand-in."""

import sys
from types import ModuleType

import pytest
import torch

from temporal_zoo.ops import BackendError
from temporal_zoo.ops.selective_scan import Direction, _operator, mamba_ssm, selective_scan
from temporal_zoo.ops.selective_scan import torch as blocked


class StandIn(torch.autograd.Function):
    """The kernel's calling convention, (rows, channels, frames) and forward in time, over the backend `torch`."""

    @staticmethod
    def forward(ctx, *arguments):
        u, delta, A, B, C, D, delta_bias = arguments
        assert all(x.stride(-1) == 1 for x in (u, delta, B, C))
        assert all(x.dtype == torch.float32 for x in (A, D, delta_bias))
        ctx.save_for_backward(*arguments)
        y, _, _ = blocked.forward([_direction(*arguments)], None, None, [], return_final=False, keep=False)
        return y.mT.contiguous()

    @staticmethod
    def backward(ctx, grad):
        direction = _direction(*ctx.saved_tensors)
        (grads,), _, _ = blocked.backward(grad.mT, [], [direction], None, None, [], [])
        return grads.u.mT, grads.dt.mT, grads.A, grads.B.mT, grads.C.mT, grads.skip, grads.dt_bias


def _direction(u, delta, A, B, C, D, delta_bias):
    return Direction(u.mT, delta.mT, A, B.mT, C.mT, D, delta_bias)


@pytest.fixture
def stand_in(monkeypatch):
    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        assert delta_softplus
        assert z is None
        return StandIn.apply(u, delta, A, B, C, D, delta_bias)

    name = "mamba_ssm.ops.selective_scan_interface"
    module = ModuleType(name)
    module.selective_scan_fn = selective_scan_fn
    for parent in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_the_adaptor_agrees_with_the_reference(stand_in, padded, gated):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([7, 3, 1]) if padded else None
    sizes = [(3, 7, 4), (3, 7, 4), (4, 2), (3, 7, 2), (3, 7, 2), (4,), (4,)]
    tensors = [torch.randn(size, generator=generator) + 0.5 for size in sizes * 2]
    tensors += [torch.randn(3, 7, 4, generator=generator)] if gated else []
    if padded:
        padding = (torch.arange(7) >= lengths[:, None]).unsqueeze(-1)
        tensors = [x.masked_fill(padding, torch.nan) if x.shape[:2] == (3, 7) else x for x in tensors]
    slope = torch.randn(3, 7, 4, generator=generator)

    def evaluate(run, dtype):
        leaves = [x.to(dtype).requires_grad_() for x in tensors]
        directions = [Direction(*leaves[7 * i : 7 * i + 7], reverse=reverse) for i, reverse in enumerate((True, False))]
        y = run(directions, leaves[14] if gated else None, lengths=lengths)
        return [y, *torch.autograd.grad(y, leaves, slope.to(dtype))]

    ours = evaluate(lambda *args, **kwargs: _operator.scan("mamba_ssm", *args, **kwargs), torch.float32)
    theirs = evaluate(lambda *args, **kwargs: selective_scan(*args, **kwargs, backend="reference"), torch.float64)
    for got, wanted in zip(ours, theirs, strict=True):
        assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_refusals_are_listed():
    wide, narrow = torch.zeros(2, 3, 4, dtype=torch.float64), torch.zeros(2, 3, 300, dtype=torch.float64)
    direction = Direction(wide, wide, -torch.ones(4, 300), narrow, narrow)
    reasons = "; ".join(mamba_ssm.refuses([direction], initial=[torch.zeros(2, 4, 300)], return_final=True))
    for part in ("CUDA only", "selective_scan_cuda is not installed", "torch.float64", "256", "zero state", "gradient"):
        assert part in reasons


def test_absent_package_is_the_reason():
    wide, narrow = torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)
    with pytest.raises(BackendError, match="mamba_ssm: mamba_ssm is not installed"):
        selective_scan([Direction(wide, wide, -torch.ones(4, 5), narrow, narrow)], backend="mamba_ssm")
