"""Compares the backends of `attention` with the float64 reference, and tests how they work with torch's tools."""

import sys
from types import ModuleType

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from temporal_zoo.ops._dispatch import tracing
from temporal_zoo.ops.attention import _operator, attention, blocked, flash_attn, sdpa, xformers

FUSED = ("flash_attn", "xformers", "sdpa", "blocked", "triton")
# rows, frames, heads, features
SHAPES = ((1, 1, 1, 2), (3, 7, 2, 5), (2, 13, 3, 8), (5, 2, 1, 33), (2, 40, 2, 16))


def inputs(shape, *, dtype=torch.float32, bias=False, padded=False, device="cpu", seed=0):
    """q, k, v, bias and lengths; with `padded` NaN at padded frames."""
    generator = torch.Generator().manual_seed(seed)
    rows, frames, heads, _ = shape
    q, k, v = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3))
    table = (
        torch.randn(heads, frames, frames, generator=generator).to(device, torch.promote_types(dtype, torch.float32))
        if bias
        else None
    )
    lengths = None
    if padded:
        lengths = torch.randint(1, frames + 1, (rows,), generator=generator).to(device)
        padding = (torch.arange(frames, device=device) >= lengths[:, None])[:, :, None, None]
        q, k, v = (x.masked_fill(padding, float("nan")) for x in (q, k, v))
    return q, k, v, table, lengths


def evaluate(backend, q, k, v, bias, lengths, dtype=None):
    """Output and gradients, in float64; the incoming gradient differs from frame to frame and is NaN at padding."""
    leaves = [x.detach().to(dtype or x.dtype).requires_grad_() for x in (q, k, v, bias) if x is not None]
    out = attention(*leaves[:3], bias=leaves[3] if bias is not None else None, lengths=lengths, backend=backend)
    slope = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.device)
    if lengths is not None:
        slope[torch.arange(q.shape[1], device=q.device) >= lengths[:, None]] = float("nan")
    grads = torch.autograd.grad(out, leaves, slope.to(out.dtype))
    return [x.double() for x in (out.detach(), *grads)]


def check(backend, q, k, v, bias, lengths, tolerance):
    if reasons := attention.reasons(backend, q, k, v, bias=bias, lengths=lengths):
        pytest.skip("; ".join(reasons))
    got = evaluate(backend, q, k, v, bias, lengths)
    wanted = evaluate("reference", q, k, v, bias, lengths, torch.float64)
    for name, ours, theirs in zip(("out", "dq", "dk", "dv", "dbias"), got, wanted, strict=False):
        error = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-3)
        assert error < tolerance, f"{name} is off by {error:.1e}"
    if lengths is not None:
        padding = torch.arange(q.shape[1], device=q.device) >= lengths[:, None]
        assert all(not x[padding].any() for x in got[:4])


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_is_the_equation(shape):
    q, k, v, bias, lengths = inputs(shape, dtype=torch.float64, bias=True, padded=True)
    out = attention(q, k, v, bias=bias, lengths=lengths, backend="reference")
    expected = torch.zeros_like(out)
    rows, _, heads, features = shape
    for row in range(rows):
        real = int(lengths[row])
        for head in range(heads):
            for i in range(real):
                logits = torch.stack([q[row, i, head] @ k[row, j, head] for j in range(real)]) / features**0.5
                weights = (logits + bias[head, i, :real]).exp()
                expected[row, i, head] = (weights / weights.sum()) @ v[row, :real, head]
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", FUSED)
def test_backends_agree(backend, shape, bias, padded):
    check(backend, *inputs(shape, bias=bias, padded=padded), tolerance=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)]
)
@pytest.mark.parametrize("backend", FUSED)
def test_backends_agree_in_other_dtypes(backend, dtype, tolerance):
    check(backend, *inputs((3, 11, 2, 8), dtype=dtype, bias=backend == "blocked", padded=True), tolerance=tolerance)


@pytest.mark.parametrize("backend", FUSED)
def test_backends_take_any_strides(backend):
    q, k, v, _, lengths = inputs((4, 6, 3, 8), padded=True)
    q, k, v = q.transpose(1, 2).contiguous().transpose(1, 2), torch.stack((k, v), -1)[..., 0], v.expand(4, 6, 3, 8)
    bias = torch.randn(6, 6, 3).permute(2, 0, 1)
    check(backend, q, k, v, bias if backend == "blocked" else None, lengths, tolerance=1e-5)


@pytest.mark.parametrize("weights", [1, 30, 200])
def test_blocks_of_rows_and_of_queries(monkeypatch, weights):
    monkeypatch.setattr(blocked, "_WEIGHTS_ON_CPU", weights)
    check("blocked", *inputs((5, 7, 2, 4), bias=True, padded=True), tolerance=1e-5)


@pytest.mark.parametrize("backend", FUSED)
def test_slices_of_rows(monkeypatch, backend):
    monkeypatch.setattr(_operator, "ROWS_AT_ONCE", 2)
    check(backend, *inputs((5, 7, 2, 8), bias=backend == "blocked", padded=True), tolerance=1e-5)


@pytest.mark.parametrize("backend", FUSED)
def test_very_many_rows(backend):
    check(backend, *inputs((131_072, 2, 1, 8)), tolerance=1e-5)


@pytest.mark.parametrize("backend", ["sdpa", "blocked"])
def test_no_rows(backend):
    assert evaluate(backend, *inputs((0, 4, 2, 8)))[1].shape == (0, 4, 2, 8)


def test_large_logits_do_not_overflow():
    q, k, v, bias, lengths = inputs((2, 9, 2, 8), padded=True, bias=True)
    for factor in (40, -40):
        check("sdpa", q * factor, k.abs(), v, None, lengths, tolerance=1e-4)
        check("blocked", q * factor, k.abs(), v, bias, lengths, tolerance=1e-4)


def test_blocked_passes_gradcheck():
    q, k, v, bias, _ = inputs((2, 3, 2, 2), dtype=torch.float64, bias=True)
    leaves = [x.double().requires_grad_() for x in (q, k, v, bias)]
    lengths = torch.tensor([3, 2])
    call = lambda q, k, v, bias: attention(q, k, v, bias=bias, lengths=lengths, backend="blocked")
    assert torch.autograd.gradcheck(call, leaves)


@pytest.mark.parametrize("backend", ["sdpa", "blocked"])
def test_the_operator_passes_opcheck(backend, opcheck):
    q, k, v, bias, lengths = inputs((3, 5, 2, 8), padded=True, bias=backend == "blocked")
    q, k, v = (x.nan_to_num().requires_grad_() for x in (q, k, v))
    bias = bias.requires_grad_() if bias is not None else None
    opcheck(_operator._forward, (q, k, v, bias, lengths, backend))


@pytest.mark.parametrize("backend", ["sdpa", "blocked", "reference"])
def test_compiles_into_one_graph(backend):
    q, k, v, bias, lengths = inputs((3, 5, 2, 8), padded=True, bias=backend != "sdpa")
    call = lambda *leaves: attention(*leaves[:3], bias=leaves[3], lengths=lengths, backend=backend).sin()
    both = []
    for function in (call, torch.compile(call, fullgraph=True, backend="aot_eager")):
        leaves = [x.clone().requires_grad_() if x is not None else None for x in (q, k, v, bias)]
        out = function(*leaves)
        both.append([out, *torch.autograd.grad(out.sum(), [x for x in leaves if x is not None])])
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("backend", ["sdpa", "blocked", "reference"])
def test_runs_on_the_meta_device(backend):
    q, k, v, bias, lengths = inputs(
        (3, 5, 2, 8), dtype=torch.bfloat16, padded=True, bias=backend != "sdpa", device="meta"
    )
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = attention(*leaves, bias=bias, lengths=lengths, backend=backend)
    out.sum().backward()
    assert out.shape == q.shape
    assert all(x.grad.shape == q.shape and x.grad.dtype == q.dtype for x in leaves)


@pytest.mark.parametrize("backend", ["sdpa", "blocked"])
def test_can_be_checkpointed(backend):
    leaves = [x.requires_grad_() for x in inputs((3, 5, 2, 8))[:3]]
    call = lambda *leaves: attention(*leaves, backend=backend)
    plain = torch.autograd.grad(call(*leaves).square().sum(), leaves)
    again = torch.autograd.grad(checkpoint(call, *leaves, use_reentrant=False).square().sum(), leaves)
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["sdpa", "blocked"])
def test_a_second_derivative_is_refused(backend):
    leaves = [x.requires_grad_() for x in inputs((2, 3, 1, 4))[:3]]
    grads = torch.autograd.grad(attention(*leaves, backend=backend).square().sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match=r"attention was differentiated twice.*attention='reference'"):
        grads[0].sum().backward()


def test_the_reference_has_a_second_derivative():
    leaves = [x.requires_grad_() for x in inputs((2, 3, 1, 2), dtype=torch.float64)[:3]]
    call = lambda *leaves: attention(*leaves, lengths=torch.tensor([3, 2]), backend="reference")
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("backend", ["sdpa", "blocked", "reference"])
def test_autocast_does_not_change_the_inside(backend):
    """Autocast rounds the inputs, but not logits, softmax and sums: results equal those without autocast."""
    q, k, v, bias, lengths = inputs((3, 33, 2, 8), bias=backend != "sdpa")
    rounded = [x.bfloat16() for x in (q, k, v)]
    plain = attention(*rounded, bias=bias, lengths=lengths, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            attention(*rounded, bias=bias, lengths=lengths, backend=backend), plain, rtol=0, atol=0
        )
        mixed = attention(q, k, v, bias=bias, lengths=lengths, backend=backend)
    assert mixed.dtype == torch.float32
    if backend != "reference":
        torch.testing.assert_close(mixed, plain.float(), rtol=0, atol=0)


def stored_bytes(backend, frames):
    """Bytes stored for backward besides q, k and v."""
    leaves = [x.requires_grad_() for x in inputs((4, frames, 2, 8))[:3]]
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        attention(*leaves, backend=backend)
    return sum(kept.values()) - sum(kept.get(x.untyped_storage().data_ptr(), 0) for x in leaves)


def test_stored_bytes_grow_with_frames_and_not_with_their_square():
    for backend in ("sdpa", "blocked"):
        out, lse = 4 * 64 * 2 * 8 * 4, 4 * 64 * 2 * 4
        assert stored_bytes(backend, 64) == out + lse
        assert stored_bytes(backend, 128) == 2 * (out + lse)
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


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("backend", [sdpa, blocked])
def test_the_weights_are_never_stored(backend, padded, monkeypatch):
    monkeypatch.setattr(blocked, "_WEIGHTS_ON_CPU", 1000)
    shape = (16, 64, 2, 4)
    q, k, v, bias, lengths = inputs(shape, bias=backend is blocked, padded=padded)
    q, k, v = (x.nan_to_num() for x in (q, k, v))
    with Largest() as largest:
        out, lse = backend.forward(q, k, v, bias, lengths)
        backend.backward(torch.ones_like(q), q, k, v, bias, lengths, out, lse, bias is not None)
    assert largest.elements <= q.numel()


def test_auto_takes_a_backend_that_stores_no_weights():
    q, k, v, bias, _ = inputs((2, 3, 2, 8), bias=True)
    with tracing() as ran:
        attention(q, k, v)
    assert ran["attention"] <= {"flash_attn", "xformers", "sdpa"}
    with tracing() as ran:
        attention(q, k, v, bias=bias)
    assert ran == {"attention": {"blocked"}}


def stub(monkeypatch, name, **functions):
    for depth in range(1, name.count(".") + 2):
        part = ".".join(name.split(".")[:depth])
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    vars(sys.modules[name]).update(functions)


def test_flash_attn_is_called_with_its_signatures(monkeypatch):
    """Stand-ins with the signatures of flash-attn 2.8, that compute what the package computes."""

    def _flash_attn_forward(
        q, k, v, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, alibi_slopes,
        return_softmax,
    ):  # fmt: skip
        assert (dropout_p, causal, window_size_left, window_size_right, softcap) == (0.0, False, -1, -1, 0.0)
        assert softmax_scale == q.shape[-1] ** -0.5
        return *blocked.forward(q, k, v, None, None), None, None

    def _flash_attn_backward(
        dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p, softmax_scale, causal, window_size_left,
        window_size_right, softcap, alibi_slopes, deterministic, rng_state=None,
    ):  # fmt: skip
        *grads, _ = blocked.backward(dout, q, k, v, None, None, out, softmax_lse, False)
        for into, grad in zip((dq, dk, dv), grads, strict=True):
            into.copy_(grad)

    functions = {f.__name__: f for f in (_flash_attn_forward, _flash_attn_backward)}
    stub(monkeypatch, "flash_attn.flash_attn_interface", **functions)
    monkeypatch.setattr(flash_attn, "NEEDS", None)
    monkeypatch.setattr(flash_attn, "refuses", lambda *args, **kwargs: [])
    check("flash_attn", *inputs((3, 7, 2, 8)), tolerance=1e-5)


def test_xformers_is_called_with_its_signatures(monkeypatch):
    """Stand-ins with the signatures of xFormers 0.0.3x, that compute what the package computes; log-sums are padded."""

    def memory_efficient_attention_forward_requires_grad(query, key, value, attn_bias=None, p=0.0, scale=None):
        out, lse = blocked.forward(query, key, value, None, None)
        return out, torch.nn.functional.pad(lse, (0, -lse.shape[-1] % 32), value=float("inf"))

    def memory_efficient_attention_backward(grad, output, lse, query, key, value, attn_bias=None, p=0.0, scale=None):
        return blocked.backward(grad, query, key, value, None, None, output, lse, False)[:3]

    functions = (memory_efficient_attention_forward_requires_grad, memory_efficient_attention_backward)
    stub(monkeypatch, "xformers.ops", **{f.__name__: f for f in functions})
    monkeypatch.setattr(xformers, "NEEDS", None)
    monkeypatch.setattr(xformers, "refuses", lambda *args, **kwargs: [])
    check("xformers", *inputs((3, 7, 2, 8)), tolerance=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize("shape", [(3, 7, 2, 8), (2, 100, 3, 64), (70_000, 3, 1, 32)])
@pytest.mark.parametrize("backend", FUSED)
def test_backends_agree_on_a_gpu(backend, shape, dtype, tolerance, bias, padded):
    check(backend, *inputs(shape, dtype=dtype, bias=bias, padded=padded, device="cuda"), tolerance=tolerance)
