"""Compares the backends of `linear_attention` with the float64 reference, and tries them with torch's tools."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import tracing
from temporal_zoo.ops.linear_attention import _operator, linear_attention
from temporal_zoo.ops.linear_attention import torch as fast

# rows, frames, heads, features, values: short rows take the products of pairs of frames, long rows take the state.
SHAPES = ((1, 1, 1, 1, 1), (3, 7, 2, 5, 5), (2, 13, 3, 4, 2), (5, 2, 1, 33, 7), (2, 40, 2, 3, 16), (2, 6, 2, 1, 30))
NAMES = ("q", "k", "v", "weights", "norm_q", "norm_k")
# Which of the optional arguments are given.
FORMS = ("plain", "weighted", "normalised", "both")


def inputs(shape, *, form="both", padded=False, dtype=torch.float32, seed=0):
    """The arguments by name; with `padded` NaN at padded frames."""
    generator = torch.Generator().manual_seed(seed)
    rows, frames, heads, features, values = shape
    q, k = (torch.randn(rows, frames, heads, features, generator=generator) for _ in range(2))
    v = torch.randn(rows, frames, heads, values, generator=generator)
    given = {"q": q, "k": k, "v": v}
    if form in ("weighted", "both"):
        given["weights"] = torch.rand(rows, frames, heads, generator=generator)
    if form in ("normalised", "both"):
        # A size of its own.
        size = (rows, frames, heads, features + 1)
        given |= {name: torch.rand(size, generator=generator) + 0.1 for name in ("norm_q", "norm_k")}
    lengths = None
    if padded:
        lengths = torch.randint(1, frames + 1, (rows,), generator=generator)
        given = {name: x.masked_fill(padding(x, lengths), float("nan")) for name, x in given.items()}
    return {name: x.to(dtype) for name, x in given.items()}, lengths


def padding(x, lengths):
    mask = torch.arange(x.shape[1]) >= lengths[:, None]
    return mask.view(*mask.shape, *[1] * (x.ndim - 2))


def call(given, **keywords):
    return linear_attention(**given, **keywords)


def evaluate(backend, given, lengths, dtype=None):
    """Output and gradients in float64; the incoming gradient differs from frame to frame and is NaN at padding."""
    leaves = {name: x.detach().to(dtype or x.dtype).requires_grad_() for name, x in given.items()}
    y = call(leaves, lengths=lengths, backend=backend)
    slope = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)
    if lengths is not None:
        slope = slope.masked_fill(padding(y, lengths), float("nan"))
    grads = torch.autograd.grad(y, list(leaves.values()), slope.to(y.dtype))
    return {"y": y.detach().double(), **{f"d{name}": x.double() for name, x in zip(leaves, grads, strict=True)}}


def check(given, lengths, tolerance):
    got = evaluate("torch", given, lengths)
    wanted = evaluate("reference", given, lengths, torch.float64)
    floor = 1e-2 * max(float(x.abs().max()) for x in wanted.values())
    for name, exact in wanted.items():
        error = (got[name] - exact).abs().max() / exact.abs().max().clamp_min(floor)
        assert error < tolerance, f"{name} is off by {error:.1e}"
        if lengths is not None:
            assert not got[name].masked_select(padding(got[name], lengths)).any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_reference_is_the_equation(shape, form):
    given, lengths = inputs(shape, form=form, padded=True, dtype=torch.float64)
    y = call(given, lengths=lengths, eps=0.3, backend="reference")
    expected = torch.zeros_like(y)
    for row, real in enumerate(lengths.tolist()):
        for head in range(shape[2]):
            x = {name: tensor[row, :real, head] for name, tensor in given.items()}
            weights = x.get("weights", torch.ones(real, dtype=torch.float64))
            state = sum(weights[j] * torch.outer(x["v"][j], x["k"][j]) for j in range(real))
            for i in range(real):
                below = x["norm_k"].sum(0) @ x["norm_q"][i] + 0.3 if "norm_q" in x else 1
                expected[row, i, head] = state @ x["q"][i] / below
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_backends_agree(shape, form, padded):
    check(*inputs(shape, form=form, padded=padded), tolerance=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)]
)
@pytest.mark.parametrize("shape", [(3, 11, 2, 8, 8), (3, 40, 2, 4, 4)])
def test_backends_agree_in_other_dtypes(shape, dtype, tolerance):
    check(*inputs(shape, padded=True, dtype=dtype), tolerance=tolerance)


@pytest.mark.parametrize("numbers", [1, 100, 200])
def test_blocks_of_rows(monkeypatch, numbers):
    monkeypatch.setattr(fast, "_BLOCK_ON_CPU", numbers)
    check(*inputs((5, 7, 2, 4, 3), padded=True), tolerance=1e-5)


def test_any_strides():
    given, lengths = inputs((4, 6, 3, 8, 8), padded=True)
    given["q"] = given["q"].transpose(1, 2).contiguous().transpose(1, 2)
    given["k"], given["v"] = torch.stack((given["k"], given["v"]), -1).unbind(-1)
    check(given, lengths, tolerance=1e-5)


def test_no_rows():
    given, _ = inputs((0, 4, 2, 8, 3))
    assert evaluate("torch", given, None)["dv"].shape == (0, 4, 2, 3)


def test_a_frame_without_features_above_zero_has_finite_gradients():
    given, _ = inputs((2, 9, 2, 4, 4))
    given["norm_q"][:, 3] = 0
    given["q"][:, 3] = 0
    assert all(x.isfinite().all() for x in evaluate("torch", given, None).values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("frames", [3, 12])
def test_the_formula_passes_gradcheck(frames, form):
    given, _ = inputs((2, frames, 2, 2, 3), form=form, dtype=torch.float64)
    lengths = torch.tensor([frames, 2])
    function = lambda *leaves: call(dict(zip(given, leaves, strict=True)), lengths=lengths, backend="torch")
    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in given.values()])


def test_the_reference_has_a_second_derivative():
    given, _ = inputs((2, 3, 1, 2, 2), dtype=torch.float64)
    function = lambda *leaves: call(dict(zip(given, leaves, strict=True)), backend="reference")
    assert torch.autograd.gradgradcheck(function, [x.requires_grad_() for x in given.values()])


def test_a_second_derivative_of_the_formula_is_refused():
    given, _ = inputs((2, 3, 1, 4, 4))
    leaves = [x.requires_grad_() for x in given.values()]
    grads = torch.autograd.grad(call(given, backend="torch").square().sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match=r"linear_attention was differentiated twice.*linear_attention='reference'"):
        grads[0].sum().backward()


@pytest.mark.parametrize("form", FORMS)
def test_the_operator_passes_opcheck(form, opcheck):
    given, lengths = inputs((3, 5, 2, 4, 3), form=form, padded=True)
    tensors = [given[name].nan_to_num().requires_grad_() if name in given else None for name in NAMES]
    opcheck(_operator._forward, (*tensors, 1e-8, lengths, "torch"))


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_compiles_into_one_graph(backend):
    given, lengths = inputs((3, 5, 2, 4, 4), padded=True)
    function = lambda given: call(given, lengths=lengths, backend=backend).sin()
    both = []
    for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
        y = run(leaves)
        both.append([y, *torch.autograd.grad(y.sum(), list(leaves.values()))])
    torch.testing.assert_close(*both)


def test_can_be_checkpointed():
    given, _ = inputs((3, 5, 2, 4, 4))
    leaves = [x.requires_grad_() for x in given.values()]
    function = lambda *leaves: call(dict(zip(given, leaves, strict=True)), backend="torch")
    plain = torch.autograd.grad(function(*leaves).square().sum(), leaves)
    again = torch.autograd.grad(checkpoint(function, *leaves, use_reentrant=False).square().sum(), leaves)
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_autocast_does_not_change_the_inside(backend):
    """Autocast rounds the inputs, but not the sums: results equal those without autocast."""
    given, _ = inputs((3, 33, 2, 8, 8))
    rounded = {name: x.bfloat16() for name, x in given.items()}
    plain = call(rounded, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(call(rounded, backend=backend), plain, rtol=0, atol=0)
        mixed = call(given, backend=backend)
    assert mixed.dtype == torch.float32
    if backend != "reference":
        torch.testing.assert_close(mixed, plain.float(), rtol=0, atol=0)


def stored_bytes(backend, frames):
    """Bytes stored for backward besides the inputs."""
    given, _ = inputs((4, frames, 2, 8, 8))
    leaves = [x.requires_grad_() for x in given.values()]
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        call(given, backend=backend)
    return sum(kept.values()) - sum(kept.get(x.untyped_storage().data_ptr(), 0) for x in leaves)


def test_only_inputs_and_outputs_are_stored():
    for frames in (4, 64):
        assert stored_bytes("torch", frames) == 4 * frames * 2 * 8 * 4
    assert stored_bytes("reference", 128) > 3 * stored_bytes("reference", 64)


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest storage that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return result


@pytest.mark.parametrize("shape", [(64, 64, 2, 4, 4), (64, 2, 2, 32, 32)])
def test_neither_pairs_of_frames_nor_states_are_held_for_all_rows(shape, monkeypatch):
    monkeypatch.setattr(fast, "_BLOCK_ON_CPU", 1000)
    given, _ = inputs(shape)
    tensors = [given[name] for name in NAMES]
    with Largest() as largest:
        y = fast.forward(*tensors, 1e-8, None)
        fast.backward(torch.ones_like(y), *tensors, 1e-8, None, y)
    assert largest.elements <= given["norm_q"].numel()


def test_runs_on_the_meta_device():
    given, _ = inputs((3, 5, 2, 4, 3), dtype=torch.bfloat16)
    leaves = {name: x.to("meta").requires_grad_() for name, x in given.items()}
    y = call(leaves)
    y.sum().backward()
    assert y.shape == leaves["v"].shape
    assert all(x.grad.shape == x.shape and x.grad.dtype == x.dtype for x in leaves.values())


def test_auto_takes_the_formula():
    with tracing() as ran:
        call(inputs((2, 3, 2, 4, 4))[0])
    assert ran == {"linear_attention": {"torch"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.ones(2, 3, 4)}, r"q is \(2, 3, 4\) of torch.float32; it must be floats"),
        ({"k": torch.ones(2, 3, 2, 5)}, r"k is \(2, 3, 2, 5\).*it must be \(2, 3, 2, 4\)"),
        ({"v": torch.ones(2, 4, 2, 4)}, r"v is \(2, 4, 2, 4\).*it must be \(2, 3, 2, 4\)"),
        ({"v": torch.ones(2, 3, 2, 4).double()}, r"v is .* of torch.float64; it must be .* of torch.float32"),
        ({"weights": torch.ones(2, 3, 1)}, r"weights is \(2, 3, 1\).*it must be \(2, 3, 2\)"),
        ({"norm_q": None}, "only one of norm_q and norm_k is given"),
        ({"norm_k": torch.ones(2, 3, 2, 4)}, r"norm_k is \(2, 3, 2, 4\).*it must be \(2, 3, 2, 5\)"),
        ({"eps": 0.0}, r"eps is 0.0; it must be positive"),
        ({"lengths": torch.tensor([4, 1])}, "lengths holds values from 1 to 4"),
    ],
)
def test_wrong_arguments_are_refused(changes, message):
    given, _ = inputs((2, 3, 2, 4, 4))
    given |= changes
    with pytest.raises(InvalidInput, match=message):
        linear_attention(**given)
