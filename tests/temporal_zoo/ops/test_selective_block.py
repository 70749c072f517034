"""`selective_block` against the composition of its parts; what it stores, and that it runs the scan once."""

import pytest
import torch

from temporal_zoo import tracing, use_backend
from temporal_zoo.ops.selective_block import Affine, Branch, _operator, reference, selective_block
from temporal_zoo.ops.selective_scan import torch as scan_by_torch

DIM = 6


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype).mul_(0.5).requires_grad_()


def layer(*, inner=10, state=3, rank=2, width=4, reverses=(False, True), biased=True, dtype=torch.float64):
    """Arguments of `selective_block` after x."""

    def branch(reverse):
        return Branch(
            conv_weight=draw(inner, width, dtype=dtype),
            conv_bias=draw(inner, dtype=dtype),
            x_proj=draw(rank + 2 * state, inner, dtype=dtype),
            dt_proj=draw(inner, rank, dtype=dtype),
            dt_bias=draw(inner, dtype=dtype),
            A=(-torch.rand(inner, state, dtype=dtype) - 0.1).requires_grad_(),
            skip=draw(inner, dtype=dtype),
            reverse=reverse,
        )

    def affine(outputs, inputs):
        return Affine(draw(outputs, inputs, dtype=dtype), draw(outputs, dtype=dtype) if biased else None)

    return affine(2 * inner, DIM), [branch(reverse) for reverse in reverses], affine(DIM, inner)


def tensors(in_proj, branches, out_proj):
    return [
        t for part in (in_proj, out_proj, *(vars(b).values() for b in branches)) for t in part if torch.is_tensor(t)
    ]


def results(function, x, arguments, lengths, weights):
    y = function(x, *arguments, lengths=lengths)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *tensors(*arguments)])]


def composed(x, *arguments, lengths):
    return reference.run(x, *arguments, lengths)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_operator, "_LEAST_ROWS", 2)
    monkeypatch.setattr(_operator, "_CACHED", 1)


@pytest.mark.parametrize(
    ("rows", "frames", "options"),
    [
        (1, 1, {}),
        (5, 7, {}),
        (5, 13, {"reverses": (False,)}),
        (4, 13, {"reverses": (True,), "biased": False}),
        (3, 5, {"inner": 1, "state": 1, "rank": 1, "width": 1}),
        (2, 65, {"state": 1, "width": 2}),
        (0, 5, {}),
    ],
)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_equals_the_composition(rows, frames, options, padded, small_blocks):
    arguments = layer(**options)
    x = torch.randn(frames, rows, DIM, dtype=torch.float64).transpose(0, 1).requires_grad_()
    lengths = torch.randint(1, frames + 1, (rows,)) if padded else None
    weights = torch.randn_like(x)
    wanted = results(composed, x, arguments, lengths, weights)
    got = results(selective_block, x, arguments, lengths, weights)
    for g, w in zip(got, wanted, strict=True):
        torch.testing.assert_close(g, w, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frames", [16, 150])
def test_float32_on_the_backends_of_this_machine(frames, small_blocks):
    arguments, x = layer(dtype=torch.float32), draw(5, frames, DIM, dtype=torch.float32)
    weights = torch.randn_like(x)
    got = results(selective_block, x, arguments, None, weights)
    with use_backend(causal_conv="reference", selective_scan="reference"):
        wanted = results(selective_block, x, arguments, None, weights)
    for g, w in zip(got, wanted, strict=True):
        assert (g - w).abs().max() <= 1e-5 * w.abs().max()


def test_stores_only_its_input_and_the_sum_of_the_scans():
    arguments, x = layer(), draw(64, 16, DIM)
    own = {tensor.data_ptr() for tensor in tensors(*arguments)}
    stored = {}

    def pack(tensor):
        stored[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        selective_block(x, *arguments)
    assert sum(size for place, size in stored.items() if place not in own) == 64 * 16 * (DIM + 10) * 8


def test_the_scan_runs_forward_once(monkeypatch):
    arguments, x = layer(), draw(3, 5, DIM)
    with use_backend(selective_scan="torch"):
        y = selective_block(x, *arguments)
        monkeypatch.delattr(scan_by_torch, "forward")
        y.sum().backward()
    assert x.grad.any()


def test_traces_backends_and_follows_pins():
    arguments, x = layer(), draw(3, 5, DIM)
    with use_backend(causal_conv="torch", selective_scan="torch"), tracing() as ran:
        y = selective_block(x, *arguments)
    assert ran == {"causal_conv": {"torch"}, "selective_scan": {"torch"}}
    assert "selective_block" in y.grad_fn.name()
    with use_backend(causal_conv="reference"), tracing() as ran:
        selective_block(x, *arguments)
    assert ran == {"causal_conv": {"reference"}, "selective_scan": {"torch"}}


def test_is_differentiated_twice_by_references_only():
    arguments, x = layer(), draw(2, 3, DIM)
    (slope,) = torch.autograd.grad(selective_block(x, *arguments).square().sum(), x, create_graph=True)
    with pytest.raises(
        RuntimeError, match=r"differentiated twice.*causal_conv='reference', selective_scan='reference'"
    ):
        slope.sum().backward()
    with use_backend(causal_conv="reference", selective_scan="reference"):
        (slope,) = torch.autograd.grad(selective_block(x, *arguments).square().sum(), x, create_graph=True)
        (curve,) = torch.autograd.grad(slope.sum(), x)
    assert curve.any()


@pytest.mark.parametrize("biased", [True, False], ids=["biased", "plain"])
def test_the_operator_passes_opcheck(biased, opcheck):
    (w_in, b_in), branches, (w_out, b_out) = layer(biased=biased)
    empty = torch.empty(0, dtype=torch.float64)
    ends = [w_in, empty if b_in is None else b_in, w_out, empty if b_out is None else b_out]
    rest = [getattr(branch, name) for branch in branches for name in _operator._TENSORS]
    arguments = (draw(3, 5, DIM), ends + rest, [False, True], torch.tensor([5, 1, 3]), "torch", "torch", True)
    opcheck(_operator._forward, arguments)


def test_autocast_decides_the_dtype_of_the_products():
    arguments, x = layer(dtype=torch.float32), draw(3, 16, DIM, dtype=torch.float32)
    exact = results(selective_block, x, arguments, None, torch.ones_like(x))
    with torch.autocast("cpu", torch.bfloat16):
        rough = results(selective_block, x, arguments, None, torch.ones_like(x))
    assert rough[0].dtype == torch.bfloat16
    for r, e in zip(rough, exact, strict=True):
        assert (r - e).abs().max() <= 0.05 * e.abs().max()


@pytest.mark.parametrize("shape", [(3, DIM), (3, 5, DIM + 1)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="must be"):
        selective_block(torch.zeros(shape, dtype=torch.float64), *layer())
