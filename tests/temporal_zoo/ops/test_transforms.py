"""Under transforms of torch.func an op runs its reference, logs it, and keeps tangents."""

import logging

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import jvp, vmap

from temporal_zoo import build, tracing, use_backend
from temporal_zoo.ops import BackendError, _transforms
from temporal_zoo.ops.attention import attention
from temporal_zoo.ops.diagonal_ssm import diagonal_ssm

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, within jvp

MIXERS = ["flash", "s4d", "mamba", "bimamba"]
PINS = {
    "flash": {"attention": "sdpa"},
    "s4d": {"diagonal_ssm": "toeplitz"},
    "mamba": {"selective_scan": "torch"},
    "bimamba": {"causal_conv": "torch"},
}


def inputs(dtype=torch.float32):
    return torch.randn(2, 3, 6, 8, dtype=dtype)


def in_dual_level(function, x, v):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, v))).tangent


@pytest.mark.parametrize("spec", MIXERS)
def test_float32_tangents_are_those_of_float64(spec):
    mixer = build(spec, 8).requires_grad_(False)
    x, v = inputs()
    found = jvp(mixer, (x,), (v,))[1], in_dual_level(mixer, x, v)
    wanted = jvp(mixer.double(), (x.double(),), (v.double(),))[1]
    for tangent in found:
        assert (tangent - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("spec", MIXERS)
@pytest.mark.parametrize("derive", [lambda *args: jvp(args[0], (args[1],), (args[2],)), in_dual_level])
def test_a_pinned_backend_is_refused_and_not_replaced(spec, derive):
    mixer = build(spec, 8)
    (op, backend), *_ = PINS[spec].items()
    with use_backend(**PINS[spec]), pytest.raises(BackendError, match=rf"{op}='reference'") as refusal:
        derive(mixer, *inputs())
    assert f"'{backend}' cannot run these inputs" in str(refusal.value)


@pytest.mark.parametrize("spec", MIXERS)
def test_tangents_of_a_gradient_are_refused(spec):
    mixer = build(spec, 8)
    x, v = inputs()
    y = mixer(x.requires_grad_())
    with forward_ad.dual_level(), pytest.raises(BackendError, match="dual numbers"):
        torch.autograd.grad(y, x, forward_ad.make_dual(torch.ones_like(y), v))


@pytest.mark.parametrize("spec", MIXERS)
def test_the_usual_backend_runs_outside_of_a_dual_level(spec):
    mixer = build(spec, 8)
    x, v = inputs()
    in_dual_level(mixer, x, v)
    with tracing() as ran:
        mixer(x)
    assert not any("reference" in backends for backends in ran.values())


def test_says_once_that_the_reference_runs(caplog):
    _transforms._warn_once.cache_clear()
    q = torch.randn(2, 3, 1, 4)
    with caplog.at_level(logging.WARNING, "temporal_zoo.ops"):
        for _ in range(2):
            vmap(lambda q: attention(q, q, q))(q[None])
            vmap(lambda q: attention(q, q, q, backend="reference"))(q[None])
    told = [record.getMessage() for record in caplog.records]
    assert told == ["attention runs its reference under a torch.func transform (vmap, grad, ...): correct, and slower"]


def test_explain_names_the_transform():
    x, v = inputs()
    with forward_ad.dual_level():
        mixer = build("s4d", 8)
        reasons = diagonal_ssm.explain(forward_ad.make_dual(x, v), [mixer.core.modes()])
    assert "dual numbers" in reasons["toeplitz"][0]
    assert reasons["reference"] == []


@pytest.mark.parametrize("spec", MIXERS)
def test_a_compiled_function_is_compiled_again_in_a_dual_level(spec):
    mixer = build(spec, 8).requires_grad_(False)
    x, v = inputs()
    torch.compiler.reset()
    try:
        compiled = torch.compile(mixer, backend="eager")
        compiled(x)
        tangent = in_dual_level(compiled, x, v)
    finally:
        torch.compiler.reset()
    wanted = in_dual_level(mixer, x, v)
    torch.testing.assert_close(tangent, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", MIXERS)
def test_many_gradients_by_vmap(spec):
    mixer = build(spec, 8)
    x = inputs()[0].requires_grad_()
    y = mixer(x)
    many = torch.randn(3, *y.shape)

    def slopes(dy):
        return torch.autograd.grad(y, [x, *mixer.parameters()], dy, retain_graph=True)

    for found, *alone in zip(vmap(slopes)(many), *map(slopes, many), strict=True):
        torch.testing.assert_close(found, torch.stack(alone), rtol=1e-5, atol=1e-6)
