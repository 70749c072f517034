"""Compares `ridge_attention` with its definition and with the float64 reference, in values and in gradients."""

import re

import pytest
import torch

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import BackendError
from temporal_zoo.ops.ridge_attention import ridge_attention
from temporal_zoo.ops.ridge_attention import torch as fast

NAMES = ("q", "k", "v", "beta", "ridge")
# rows, frames, heads, features: fewer frames than features, as many, and more.
SHAPES = ((1, 1, 1, 1), (3, 7, 2, 5), (2, 13, 3, 8), (5, 2, 1, 33), (2, 40, 2, 16), (2, 8, 1, 8))


def inputs(shape, *, dtype=torch.float64, padded=False):
    """q, k, v, beta, ridge and lengths; with `padded` NaN at padded frames."""
    generator = torch.Generator().manual_seed(0)
    rows, frames, heads, features = shape
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    beta = torch.rand(shape[:3], generator=generator, dtype=torch.float64)
    ridge = 0.25 + torch.rand(heads, features, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, frames + 1, (rows,), generator=generator) if padded else None
    if padded:
        padding = torch.arange(frames) >= lengths[:, None]
        q, k, v = (x.masked_fill(padding[..., None, None], float("nan")) for x in (q, k, v))
        beta = beta.masked_fill(padding[..., None], float("nan"))
    return *(x.to(dtype) for x in (q, k, v, beta, ridge)), lengths


def evaluate(backend, *tensors, lengths=None):
    """Output and gradients by name; the incoming gradient differs between frames and is NaN at padding."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    out = ridge_attention(*leaves, lengths=lengths, backend=backend)
    slope = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).reshape(out.shape)
    if lengths is not None:
        slope[torch.arange(out.shape[1]) >= lengths[:, None]] = float("nan")
    grads = torch.autograd.grad(out, leaves, slope.to(out.dtype))
    return {"out": out.detach()} | dict(zip(NAMES, grads, strict=True))


def check(*tensors, lengths, tolerance):
    """Compares the fast backend with the float64 reference."""
    got = evaluate("torch", *tensors, lengths=lengths)
    wanted = evaluate("reference", *(x.double() for x in tensors), lengths=lengths)
    largest = max(float(x.abs().max()) for x in wanted.values())
    for name, truth in wanted.items():
        error = (got[name].double() - truth).abs().max() / truth.abs().max().clamp_min(1e-2 * largest + 1e-9)
        assert error < tolerance, f"{name} is off by {error:.1e}"
        assert got[name].dtype == (tensors[0] if name == "out" else tensors[NAMES.index(name)]).dtype
    if lengths is not None:
        padding = torch.arange(tensors[0].shape[1]) >= lengths[:, None]
        assert not any(got[name][padding].any() for name in ("out", "q", "k", "v", "beta"))


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_equation(shape, backend):
    q, k, v, beta, ridge, lengths = inputs(shape, padded=True)
    out = ridge_attention(q, k, v, beta, ridge, lengths=lengths, backend=backend)
    expected = torch.zeros_like(out)
    for row, real in enumerate(lengths.tolist()):
        for head in range(shape[2]):
            queries, keys = (x[row, :real, head] for x in (q, k))
            queries, keys = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (queries, keys))
            weighted = beta[row, :real, head, None] * keys
            matrix = weighted.T @ keys + ridge[head].diag()
            expected[row, :real, head] = torch.linalg.solve(matrix, queries.T).T @ (weighted.T @ v[row, :real, head])
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_reference_and_torch_agree(shape, padded):
    *tensors, lengths = inputs(shape, padded=padded)
    check(*tensors, lengths=lengths, tolerance=1e-11)
    check(*(x.float() for x in tensors), lengths=lengths, tolerance=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize("shape", [(3, 11, 2, 8), (3, 5, 2, 8)])
def test_half_precision_sums_and_solves_in_float32(shape, dtype, tolerance):
    *tensors, lengths = inputs(shape, dtype=dtype, padded=True)
    check(*tensors, lengths=lengths, tolerance=tolerance)


def test_weights_and_ridge_may_have_another_dtype():
    q, k, v, beta, ridge, lengths = inputs((3, 11, 2, 8), dtype=torch.bfloat16)
    check(q, k, v, beta.float(), ridge.float(), lengths=lengths, tolerance=2e-2)


@pytest.mark.parametrize("frames", [5, 13])
def test_any_strides(frames):
    q, k, v, beta, ridge, lengths = inputs((4, frames, 3, 8), padded=True)
    q, k = q.transpose(1, 2).contiguous().transpose(1, 2), torch.stack((k, v), -1)[..., 0]
    beta, ridge = torch.stack((beta, beta), -1)[..., 0], ridge.T.contiguous().T
    check(q, k, v, beta, ridge, lengths=lengths, tolerance=1e-11)


@pytest.mark.parametrize("elements", [1, 500, 2000])
def test_blocks_of_rows(monkeypatch, elements):
    monkeypatch.setattr(fast, "_BLOCK_ON_CPU", elements)
    *tensors, lengths = inputs((7, 9, 2, 4), padded=True)
    check(*tensors, lengths=lengths, tolerance=1e-11)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_no_rows(backend):
    *tensors, _ = inputs((0, 9, 2, 4))
    found = evaluate(backend, *tensors)
    assert found["out"].shape == (0, 9, 2, 4)
    assert not found["ridge"].any()


@pytest.mark.parametrize("frames", [5, 13])
@pytest.mark.parametrize("change", ["zero keys", "zero weights", "equal keys", "large weights"])
def test_degenerate_rows_have_finite_gradients(change, frames):
    q, k, v, beta, ridge, _ = inputs((2, frames, 2, 8))
    if change == "zero keys":
        q, k = torch.zeros_like(q), torch.zeros_like(k)
    elif change == "zero weights":
        beta = torch.zeros_like(beta)
    elif change == "equal keys":
        k = k[:, :1].expand_as(k)
    else:
        beta = 1e6 * beta
    check(q, k, v, beta, ridge, lengths=None, tolerance=1e-7)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_the_order_of_frames_makes_no_difference(backend):
    *tensors, ridge, _ = inputs((2, 11, 2, 8))
    forward = ridge_attention(*tensors, ridge, backend=backend)
    backward = ridge_attention(*(x.flip(1) for x in tensors), ridge, backend=backend)
    torch.testing.assert_close(backward.flip(1), forward, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("frames", [1, 5, 16, 64])
def test_one_orthonormal_key_per_frame_returns_shrunken_values(frames):
    """With orthonormal keys, beta = 1 and one ridge r, the fit at a key is its value divided by 1 + r."""
    k = 1e4 * torch.eye(frames, 64, dtype=torch.float64)[None, :, None]
    v = torch.randn(1, frames, 1, 64, dtype=torch.float64)
    out = ridge_attention(k, k, v, torch.ones(1, frames, 1), torch.full((1, 64), 0.25))
    torch.testing.assert_close(out, v / 1.25, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("frames", [3, 9])
def test_torchs_own_check_of_the_operator(opcheck, frames):
    *tensors, lengths = inputs((3, frames, 2, 4), padded=True)
    tensors = [x.nan_to_num().requires_grad_() for x in tensors]
    opcheck(torch.ops.temporal_zoo.ridge_attention.default, (*tensors, lengths, "torch"))


@pytest.mark.parametrize("frames", [16, 64])
def test_it_stores_its_inputs_only(frames):
    tensors = [x.requires_grad_() for x in inputs((4, frames, 2, 32), dtype=torch.float32)[:-1]]
    pointers = {x.data_ptr() for x in tensors}
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: stored.append(x.data_ptr()) or x, lambda x: x):
        ridge_attention(*tensors)
    assert set(stored) <= pointers


def test_only_the_reference_has_a_second_derivative():
    *tensors, _ = inputs((1, 3, 1, 2))
    for backend in ("reference", "torch"):
        leaves = [x.detach().requires_grad_() for x in tensors]
        (first,) = torch.autograd.grad(
            ridge_attention(*leaves, backend=backend).square().sum(), leaves[:1], create_graph=True
        )
        if backend == "reference":
            assert torch.autograd.grad(first.sum(), leaves[1])[0].isfinite().all()
        else:
            with pytest.raises(BackendError, match="ridge_attention='reference'"):
                torch.autograd.grad(first.sum(), leaves[1])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("q", lambda x: x[0], "q is (7, 2, 5) of torch.float64; it must be floats (rows, frames, heads, features)"),
        ("q", lambda x: x.long(), "q is (3, 7, 2, 5) of torch.int64; it must be floats"),
        ("k", lambda x: x[:, 1:], "k is (3, 6, 2, 5) of torch.float64; q is (3, 7, 2, 5) of torch.float64"),
        ("v", lambda x: x.float(), "v is (3, 7, 2, 5) of torch.float32; q is (3, 7, 2, 5) of torch.float64"),
        ("beta", lambda x: x[..., :1], "beta is (3, 7, 1) of torch.float64; it must be floats of shape (3, 7, 2)"),
        ("ridge", lambda x: x[:, 0], "ridge is (2,) of torch.float64; it must be floats of shape (2, 5)"),
        ("ridge", lambda x: x.long(), "ridge is (2, 5) of torch.int64; it must be floats of shape (2, 5)"),
    ],
)
def test_refusals(name, change, message):
    tensors = dict(zip(NAMES, inputs((3, 7, 2, 5)), strict=False))
    tensors[name] = change(tensors[name])
    with pytest.raises(InvalidInput, match=re.escape(message)):
        ridge_attention(**tensors)
