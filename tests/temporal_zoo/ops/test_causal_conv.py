"""Compares the backends of `causal_conv` with the float64 reference, and tests how they work with torch's tools."""

import sys
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from temporal_zoo.ops import BackendError, tracing
from temporal_zoo.ops.causal_conv import Filter, causal_conv, causal_conv1d
from temporal_zoo.ops.causal_conv import torch as torch_backend

BACKENDS = [backend for backend in causal_conv.backends if backend != "reference"]
# rows, frames, channels and the widths of the filters, of which every second looks ahead
SHAPES = ((1, 1, 1, (4,)), (3, 7, 5, (4, 3)), (5, 2, 3, (4, 4)), (2, 13, 33, (2, 1, 5)), (2, 40, 16, (4, 4)))


def inputs(shape, *, padded=False, initial=True, bias=True, dtype=torch.float64):
    """x, filters, lengths and initial; with `padded` NaN at padded frames."""
    rows, frames, channels, widths = shape
    x = torch.randn(rows, frames, channels, dtype=dtype)
    lengths = None
    if padded:
        lengths = torch.randint(1, frames + 1, (rows,))
        x[torch.arange(frames) >= lengths[:, None]] = float("nan")
    filters = [
        Filter(
            torch.randn(channels, width, dtype=dtype), torch.randn(channels, dtype=dtype) if bias else None, i % 2 == 1
        )
        for i, width in enumerate(widths)
    ]
    starts = [torch.randn(rows, width - 1, channels, dtype=dtype) for width in widths] if initial else None
    return x, filters, lengths, starts


def evaluate(backend, x, filters, lengths, starts, *, silu=False, dtype=torch.float64):
    """Outputs, final inputs and all gradients, in float64; incoming gradients are NaN at padded frames."""
    leaf = lambda tensor: None if tensor is None else tensor.detach().to(dtype).requires_grad_()
    x = leaf(x)
    filters = [Filter(leaf(taps.weight), leaf(taps.bias), taps.reverse) for taps in filters]
    starts = None if starts is None else [leaf(start) for start in starts]
    call = {"silu": silu, "lengths": lengths, "initial": starts, "return_final": True}
    if reasons := causal_conv.reasons(backend, x, filters, **call):
        pytest.skip("; ".join(reasons))
    ys, finals = causal_conv(x, filters, backend=backend, **call)
    slopes = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape) for y in (*ys, *finals)]
    if lengths is not None:
        for slope in slopes[: len(ys)]:
            slope[torch.arange(x.shape[1]) >= lengths[:, None]] = float("nan")
    leaves = [x, *(t.weight for t in filters), *(t.bias for t in filters if t.bias is not None), *(starts or [])]
    grads = torch.autograd.grad([*ys, *finals], leaves, slopes)
    return [tensor.detach().double() for tensor in (*ys, *finals, *grads)]


def check(backend, tolerance, *args, dtype=torch.float32, **options):
    got = evaluate(backend, *args, dtype=dtype, **options)
    wanted = evaluate("reference", *args, **options)
    for number, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        assert ours.shape == theirs.shape
        if ours.numel():
            error = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-3)
            assert error < tolerance, f"result {number} is off by {error:.1e}"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padded", [False, True])
def test_reference_is_the_equation(shape, padded):
    x, filters, lengths, starts = inputs(shape, padded=padded)
    ys, finals = causal_conv(x, filters, lengths=lengths, initial=starts, return_final=True, backend="reference")
    for taps, start, y, final in zip(filters, starts, ys, finals, strict=True):
        width = taps.weight.shape[1]
        expected = torch.zeros_like(x)
        for row in range(len(x)):
            real = x.shape[1] if lengths is None else int(lengths[row])
            known = {t: x[row, t] for t in range(real)}
            known |= {(real + j if taps.reverse else j - width + 1): start[row, j] for j in range(width - 1)}
            for t in range(real):
                terms = [taps.weight[:, width - 1 - k] * known[t + k if taps.reverse else t - k] for k in range(width)]
                expected[row, t] = taps.bias + sum(terms)
            first = 0 if taps.reverse else real - width + 1
            for j in range(width - 1):
                assert torch.equal(final[row, j], known[first + j])
        torch.testing.assert_close(y, expected)


def test_weights_are_in_the_order_of_conv1d():
    x, (taps,), _, _ = inputs((2, 9, 3, (4,)))
    expected = F.conv1d(F.pad(x.mT, (3, 0)), taps.weight.unsqueeze(1), taps.bias, groups=3).mT
    for backend in ("torch", "reference"):
        torch.testing.assert_close(causal_conv(x, [taps], backend=backend)[0], expected)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_agrees_with_the_reference(backend, shape, padded, silu):
    check(backend, 1e-5, *inputs(shape, padded=padded), silu=silu)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_backend_agrees_with_the_reference_in_half_precision(backend, dtype):
    check(backend, 2e-2, *inputs((3, 11, 8, (4, 4)), padded=True, dtype=dtype), silu=True, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_takes_no_bias_no_initial_or_only_some(backend):
    shape = (3, 7, 5, (4, 4))
    check(backend, 1e-5, *inputs(shape, initial=False, bias=False), silu=True)
    x, (one, other), _, starts = inputs(shape)
    some = [one, Filter(other.weight, None, True)]
    ys = causal_conv(x, some, initial=[None, starts[1]], backend="reference")
    if not causal_conv.reasons(backend, x, some, initial=[None, starts[1]]):
        torch.testing.assert_close(causal_conv(x, some, initial=[None, starts[1]], backend=backend), ys)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_takes_views_and_other_strides(backend):
    x, filters, _, _ = inputs((3, 6, 10, (4, 3)))
    filters = [Filter(f.weight[::2], f.bias[::2], f.reverse) for f in filters]
    views = (x[..., :5], x[..., ::2], x[::2, 1:, 3:8], x.transpose(0, 1)[..., 5:], x[:1, :, :5].expand(4, 6, 5))
    for view in views:
        check(backend, 1e-5, view, filters, None, None, silu=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_works_with_zero_rows(backend):
    check(backend, 1e-5, *inputs((0, 4, 3, (4, 4))))


@pytest.mark.parametrize("backend", BACKENDS)
def test_very_many_rows(backend):
    check(backend, 3e-5, *inputs((131_072, 2, 1, (3, 2)), padded=True), silu=True)


def test_torch_backend_goes_through_blocks_of_rows(monkeypatch):
    monkeypatch.setattr(torch_backend, "BLOCK", 100)
    check("torch", 1e-5, *inputs((7, 11, 4, (4, 3)), padded=True), silu=True)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_gradcheck(backend):
    x, filters, lengths, starts = inputs((2, 5, 2, (3, 2)), padded=True)
    leaves = [x.nan_to_num(), *(f.weight for f in filters), *(f.bias for f in filters), *starts]

    def function(x, w, w2, b, b2, *starts):
        pair = [Filter(w, b), Filter(w2, b2, True)]
        ys, finals = causal_conv(
            x, pair, silu=True, lengths=lengths, initial=starts, return_final=True, backend=backend
        )
        return *ys, *finals

    assert torch.autograd.gradcheck(function, [leaf.requires_grad_() for leaf in leaves])


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_equal_the_whole(backend, reverse):
    x, (taps,), _, (start,) = inputs((3, 17, 4, (4,)))
    taps = Filter(taps.weight, taps.bias, reverse)
    (whole,), (end,) = causal_conv(x, [taps], initial=[start], return_final=True, backend=backend)
    for size in (1, 2, 5, 16):
        chunks, parts, state = x.split(size, dim=1), [], start
        for chunk in reversed(chunks) if reverse else chunks:
            (y,), (state,) = causal_conv(chunk, [taps], initial=[state], return_final=True, backend=backend)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts[::-1] if reverse else parts, dim=1), whole)
        assert torch.equal(state, end)


def test_time_reversed_input_gives_time_reversed_output():
    x, (one, other), _, _ = inputs((3, 9, 4, (4, 3)))
    there, back = causal_conv(x, [one, other], silu=True, backend="torch")
    swapped = [Filter(other.weight, other.bias), Filter(one.weight, one.bias, True)]
    swapped_there, swapped_back = causal_conv(x.flip(1), swapped, silu=True, backend="torch")
    torch.testing.assert_close(swapped_there.flip(1), back)
    torch.testing.assert_close(swapped_back.flip(1), there)


def leaves_and_function(backend, *, padded=True):
    x, filters, lengths, starts = inputs((3, 7, 8, (4, 3)), padded=padded, dtype=torch.float32)
    leaves = [t.requires_grad_() for t in (x, *(f.weight for f in filters), filters[0].bias, starts[0])]

    def function(x, w, w2, bias, start):
        pair = [Filter(w, bias), Filter(w2, None, True)]
        there, back = causal_conv(x, pair, silu=True, lengths=lengths, initial=[start, None], backend=backend)
        return there * 2 - back

    return leaves, function


def test_compiles_without_graph_breaks_and_under_checkpointing():
    leaves, function = leaves_and_function("torch")
    wanted = function(*leaves)
    grads = torch.autograd.grad(wanted.square().sum(), leaves)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    for got in (compiled(*leaves), checkpoint(function, *leaves, use_reentrant=False)):
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(torch.autograd.grad(got.square().sum(), leaves), grads)


def test_the_operator_passes_opcheck():
    x, filters, lengths, starts = inputs((2, 5, 3, (3, 2)), padded=True)
    x = x.nan_to_num().requires_grad_()
    weights, biases = [f.weight.requires_grad_() for f in filters], [f.bias.requires_grad_() for f in filters]
    args = (x, weights, biases, starts, lengths, [False, True], True, "torch")
    torch.library.opcheck(
        torch.ops.temporal_zoo.causal_conv.default,
        args,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def test_second_derivative_is_refused_by_name():
    leaves, function = leaves_and_function("torch", padded=False)
    (grad,) = torch.autograd.grad(function(*leaves).square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match=r"causal_conv was differentiated twice.*causal_conv='reference'"):
        grad.sum().backward()


def test_shapes_on_the_meta_device():
    x = torch.randn(131_072, 16, 64, device="meta", requires_grad=True)
    taps = Filter(torch.randn(64, 4, device="meta", requires_grad=True))
    (y,), (final,) = causal_conv(x, [taps], return_final=True, backend="torch")
    y.sum().backward()
    assert (y.shape, final.shape, x.grad.shape, y.device.type) == (x.shape, (131_072, 3, 64), x.shape, "meta")


def test_stores_only_its_inputs():
    x, filters, _, _ = inputs((64, 16, 8, (4, 4)), dtype=torch.float32)
    x.requires_grad_()
    filters = [Filter(f.weight.requires_grad_(), f.bias.requires_grad_(), f.reverse) for f in filters]
    seen = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):
        causal_conv(x, filters, silu=True, backend="torch")
    assert sum(seen.values()) == x.nbytes + sum(f.weight.nbytes + f.bias.nbytes for f in filters)


def test_keeps_the_dtype_of_x_under_autocast():
    x, filters, _, _ = inputs((2, 5, 8, (4,)), dtype=torch.float32)
    wanted = causal_conv(x, filters, backend="torch")[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(causal_conv(x, filters, backend="torch")[0], wanted)
        (y,) = causal_conv(x.bfloat16(), filters, backend="torch")
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), wanted, rtol=2e-2, atol=2e-2)


def test_reports_reasons_and_the_backend_that_ran():
    x, filters, lengths, _ = inputs((3, 7, 5, (4, 5)), padded=True)
    reasons = "; ".join(causal_conv1d.refuses(x, filters, lengths=lengths))
    for reason in ("CUDA only", "reverse", "lengths", "2 to 4 taps", "float64", "multiple of 8"):
        assert reason in reasons
    with pytest.raises(BackendError, match="causal_conv1d"):
        causal_conv(x, filters, backend="causal_conv1d")
    with tracing() as ran:
        causal_conv(x, filters, backend="torch")
    assert ran == {"causal_conv": {"torch"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3)}, "x is"),
        ({"filters": []}, "no filters"),
        ({"filters": [Filter(torch.zeros(5, 4))]}, "weight is"),
        ({"filters": [Filter(torch.zeros(4, 4), torch.zeros(3))]}, "bias is"),
        ({"lengths": torch.ones(3, dtype=torch.int64)}, "lengths is"),
        ({"initial": []}, "initial has 0 entries"),
        ({"initial": [torch.zeros(2, 4, 4)]}, "entry of initial"),
    ],
)
def test_refuses_shapes_that_do_not_fit(change, message):
    call = {"x": torch.zeros(2, 3, 4), "filters": [Filter(torch.zeros(4, 4))]} | change
    with pytest.raises(ValueError, match=message):
        causal_conv(**call)


class Published(torch.autograd.Function):
    """Stands in for the package's function, with its layout (rows, channels, frames) and a gradient of its own."""

    @staticmethod
    def forward(ctx, x, weight, bias, initial_states, activation):
        ctx.activation = activation
        ctx.save_for_backward(x, weight, bias, initial_states)
        return Published.compute(x, weight, bias, initial_states, activation)

    @staticmethod
    def compute(x, weight, bias, initial_states, activation):
        assert x.stride(1) == 1
        start = x.new_zeros(*x.shape[:2], weight.shape[1] - 1) if initial_states is None else initial_states
        y = F.conv1d(torch.cat([start, x], dim=2), weight.unsqueeze(1), bias, groups=weight.shape[0])
        return F.silu(y) if activation == "silu" else y

    @staticmethod
    def backward(ctx, dy):
        tensors = ctx.saved_tensors
        which = [i for i, tensor in enumerate(tensors) if tensor is not None]
        _, pull = torch.func.vjp(
            lambda *given: Published.compute(
                *(given[which.index(i)] if i in which else None for i in range(4)), ctx.activation
            ),
            *(tensors[i] for i in which),
        )
        grads = dict(zip(which, pull(dy), strict=True))
        return *(grads.get(i) for i in range(4)), None


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_the_adaptor_calls_the_package_with_its_layout(monkeypatch, silu, full):
    package = ModuleType("causal_conv1d")
    package.causal_conv1d_fn = lambda x, weight, bias=None, initial_states=None, activation=None: Published.apply(
        x, weight, bias, initial_states, activation
    )
    monkeypatch.setitem(sys.modules, "causal_conv1d", package)
    monkeypatch.setattr(causal_conv1d, "refuses", lambda *args, **kwargs: [])
    x, filters, _, starts = inputs((3, 6, 8, (4, 3)), initial=full, bias=full)
    filters = [Filter(taps.weight, taps.bias) for taps in filters]
    monkeypatch.setattr(causal_conv1d, "NEEDS", None)
    check("causal_conv1d", 1e-5, x, filters, None, starts, silu=silu)
