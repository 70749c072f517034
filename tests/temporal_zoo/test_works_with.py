"""Tests every cell of the table in docs/works-with.md; the page quotes every refusal."""

import copy
import importlib.util
import io
import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vmap
from torch.nn.utils import parametrizations, prune

from temporal_zoo import build, names, tracing, use_backend
from temporal_zoo.errors import UserError

PAGE = (Path(__file__).parents[2] / "docs" / "works-with.md").read_text()
LAYERS = (nn.Linear, nn.Conv1d)
TOOLS = {}


def tool(name):
    """Registers a function of (mixer, x) that returns the result of a tool and the expected result."""

    def add(function):
        TOOLS[name] = function
        return function

    return add


def direction(x):
    return torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)


def along(function, x):
    """The derivative of a function along `direction`, by central differences."""
    with torch.no_grad():
        return (function(x + 1e-6 * direction(x)) - function(x - 1e-6 * direction(x))) / 2e-6


def gradient(mixer, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(mixer(x).square().sum(), x)[0]


def changed(mixer, change):
    """A copy of the mixer; `change` was applied to all of its layers."""
    mixer = copy.deepcopy(mixer)
    for name, layer in list(mixer.named_modules()):
        if isinstance(layer, LAYERS):
            change(mixer, name, layer)
    return mixer


@tool("`torch.func.jvp`")
def by_jvp(mixer, x):
    return jvp(mixer.requires_grad_(False), (x,), (direction(x),))[1], along(mixer, x)


@tool("`torch.func.jacfwd`")
def by_jacfwd(mixer, x):
    return torch.einsum("rtcijk,ijk->rtc", jacfwd(mixer)(x), direction(x)), along(mixer, x)


@tool("`torch.func.linearize`")
def by_linearize(mixer, x):
    return linearize(mixer.requires_grad_(False), x)[1](direction(x)), along(mixer, x)


@tool("dual numbers (`torch.autograd.forward_ad`)")
def by_dual_numbers(mixer, x):
    mixer.requires_grad_(False)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(mixer(forward_ad.make_dual(x, direction(x)))).tangent
    return tangent, along(mixer, x)


@tool("a loss of `jvp`, trained in reverse (MeanFlow)")
def by_gradients_of_tangents(mixer, x):
    x.requires_grad_()
    tangent = jvp(mixer, (x,), (direction(x),))[1]
    # The tangent of the control does not depend on x.
    result = torch.autograd.grad(tangent.square().sum() / 2 + 0 * x.sum(), x)[0]
    weights, gradients = tangent.detach(), []
    for step in (1e-6, -1e-6):
        at = (x + step * direction(x)).detach().requires_grad_()
        gradients.append(torch.autograd.grad((mixer(at) * weights).sum(), at)[0])
    return result, (gradients[0] - gradients[1]) / 2e-6


@tool("`torch.func.vmap`")
def by_vmap(mixer, x):
    return vmap(mixer)(torch.stack([x, 2 * x]))[1], mixer(2 * x)


@tool("`torch.func.grad`")
def by_grad(mixer, x):
    return grad(lambda x: mixer(x).square().sum())(x), gradient(mixer, x)


@tool("gradients per sample (`vmap` of `grad`)")
def by_gradients_per_sample(mixer, x):
    parameters = {name: parameter.detach() for name, parameter in mixer.named_parameters()}

    def loss(parameters, sample):
        return functional_call(mixer, parameters, (sample[None],)).square().sum()

    by_name, of_input = vmap(grad(loss, argnums=(0, 1)), (None, 0))(parameters, x)
    together = (
        gradient(mixer, x),
        *torch.autograd.grad(mixer(x).square().sum() + 0 * x.requires_grad_().sum(), [*mixer.parameters(), x]),
    )
    return flat([of_input, *(gradients.sum(0) for gradients in by_name.values())]), flat(together[:-1])


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


@tool("`torch.func.jacrev`")
def by_jacrev(mixer, x):
    return torch.einsum("rtcijk,ijk->rtc", jacrev(mixer)(x), direction(x)), along(mixer, x)


@tool("`torch.func.hessian`")
def by_hessian(mixer, x):
    curves = hessian(lambda x: mixer(x).square().sum())(x)
    return torch.einsum("rtcijk,ijk->rtc", curves, direction(x)), by_differences_of_gradients(mixer, x)


def by_differences_of_gradients(mixer, x):
    return (gradient(mixer, x + 1e-6 * direction(x)) - gradient(mixer, x - 1e-6 * direction(x))) / 2e-6


@tool("second derivatives (`create_graph=True`)")
def by_second_derivatives(mixer, x):
    x.requires_grad_()
    (first,) = torch.autograd.grad(mixer(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad((first * direction(x)).sum(), x)[0], by_differences_of_gradients(mixer, x)


@tool("many gradients at once (`is_grads_batched=True`)")
def by_batched_gradients(mixer, x):
    x.requires_grad_()
    y = mixer(x) * 1
    result = torch.autograd.grad(y, x, torch.stack([y.detach(), 2 * y.detach()]), is_grads_batched=True)[0]
    return 2 * result[1], 2 * gradient(mixer, x)


@tool("many gradients at once (`vmap` of `torch.autograd.grad`)")
def by_vmapped_gradients(mixer, x):
    x.requires_grad_()
    y = mixer(x) * 1
    result = vmap(lambda dy: torch.autograd.grad(y, x, dy)[0])(torch.stack([y.detach(), 2 * y.detach()]))
    return result[1], gradient(mixer, x)


@tool("activation checkpointing")
def by_checkpointing(mixer, x):
    return gradient(lambda x: torch.utils.checkpoint.checkpoint(mixer, x, use_reentrant=False), x), gradient(mixer, x)


@tool("`torch.compile` (inductor)")
def by_compile(mixer, x):
    torch.compiler.reset()
    return gradient(torch.compile(mixer, fullgraph=True), x), gradient(mixer, x)


@tool("`torch.export`")
def by_export(mixer, x):
    return torch.export.export(mixer, (x,)).module()(x), mixer(x)


@tool("`torch.jit.trace`")
def by_trace(mixer, x):
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(mixer, (x,), check_trace=False), file)
    file.seek(0)
    return torch.jit.load(file)(x), mixer(x)


@tool("`torch.onnx.export`")
def by_onnx(mixer, x):
    mixer, x = mixer.float().eval(), x.float()
    file = io.BytesIO()
    torch.onnx.export(mixer, (x,), file, dynamo=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(file.getvalue())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(y), mixer(x)


@tool("dynamic quantisation (`quantize_dynamic`)")
def by_quantisation(mixer, x):
    mixer, x = mixer.float(), x.float()
    quantised = torch.ao.quantization.quantize_dynamic(mixer, {nn.Linear})
    assert not any(type(layer) is nn.Linear for layer in quantised.modules())
    # Eight bits: an error of 1/100 of the largest value in each of a few layers.
    return (quantised(x) - mixer(x)) / 50, torch.zeros_like(x)


@tool("adapters around a layer (LoRA)")
def by_adapters(mixer, x):
    class Adapter(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.scale = base, nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

        def forward(self, x):
            return self.base(x) * self.scale

    adapted = changed(mixer, lambda mixer, name, layer: mixer.set_submodule(name, Adapter(layer)))
    y = adapted(x)
    (y.square().sum() + 0 * x.requires_grad_().sum()).backward()
    assert all(layer.scale.grad.any() for layer in adapted.modules() if isinstance(layer, Adapter))
    with torch.no_grad():
        return y, changed(mixer, lambda mixer, name, layer: [p.mul_(1.5) for p in layer.parameters()])(x)


@tool("hooks on a layer")
def by_hooks(mixer, x):
    hooked = changed(mixer, lambda mixer, name, layer: layer.register_forward_hook(lambda *args: args[-1] * 1.5))
    with torch.no_grad():
        return hooked(x), changed(mixer, lambda mixer, name, layer: [p.mul_(1.5) for p in layer.parameters()])(x)


@tool("pruning (`torch.nn.utils.prune`)")
def by_pruning(mixer, x):
    pruned = changed(mixer, lambda mixer, name, layer: prune.random_unstructured(layer, "weight", 0.5))
    with torch.no_grad():
        for name, parameter in pruned.named_parameters():
            if name.endswith("weight_orig"):
                parameter.mul_(2)
    y = pruned(x)
    for layer in pruned.modules():
        if prune.is_pruned(layer) and isinstance(layer, LAYERS):
            prune.remove(layer, "weight")
    return y, pruned(x)


@tool("parametrisations (`weight_norm`)")
def by_parametrisations(mixer, x):
    return changed(mixer, lambda mixer, name, layer: parametrizations.weight_norm(layer))(x), mixer(x)


@tool("weights in bfloat16")
def by_bfloat16(mixer, x):
    return near(mixer, x, torch.bfloat16)


@tool("weights in float16")
def by_float16(mixer, x):
    return near(mixer, x, torch.float16)


def near(mixer, x, dtype):
    expected = mixer.float()(x.float())
    result = mixer.to(dtype)(x.to(dtype))
    assert result.dtype == dtype
    # Eight bits of mantissa, in each of a few layers.
    return (result.float() - expected) / 50, torch.zeros_like(expected)


def cells():
    """(tool, mixer) -> the text of the cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    header = next(row for row in rows if row[0] == "tool" and len(row) > 3)
    mixers = [cell.strip("`") for cell in header[1:]]
    table = [row for row in rows if len(row) == len(header) and row[0] in TOOLS]
    return {(row[0], mixer): cell for row in table for mixer, cell in zip(mixers, row[1:], strict=True)}


def refusals():
    """The refusals that the page quotes."""
    return re.findall(r"^> (.+)$", PAGE, re.MULTILINE)


CELLS = cells()


def backends(mixer, x):
    with tracing() as ran, torch.no_grad():
        mixer(x)
    return {backend for backends in ran.values() for backend in backends}


def outcome(name, spec):
    """The outcome: "yes", "reference" if the tool makes ops use the reference, or the text of the refusal."""
    torch.manual_seed(0)
    mixer, x = build(spec, 8).double(), torch.randn(2, 3, 8, dtype=torch.float64)
    usual = backends(mixer, x)
    try:
        with tracing() as ran, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates some of these tools
            result, expected = TOOLS[name](mixer, x)
    except UserError as refusal:
        return str(refusal)
    worst = (result - expected).abs().max() / expected.abs().max().clamp(min=1)
    assert worst < 1e-3, f"{name} is off by {worst:.1e} with {spec}"
    return "reference" if "reference" in {backend for each in ran.values() for backend in each} - usual else "yes"


def test_the_table_has_every_tool_and_every_mixer():
    assert set(CELLS) == {(name, mixer) for name in TOOLS for mixer in names()}


@pytest.mark.parametrize("spec", names())
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "inductor" in name else ()) for name in TOOLS]
)
def test_a_cell_is_correct(name, spec):
    if "onnx" in name and not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        pytest.skip("onnx and onnxruntime are not installed")
    if "quantisation" in name and not {"fbgemm", "x86", "qnnpack"} & set(torch.backends.quantized.supported_engines):
        pytest.skip("torch has no engine for quantised layers on this machine")
    result = outcome(name, spec)
    if result in ("yes", "reference"):
        assert CELLS[name, spec] == result
    else:
        assert CELLS[name, spec] == "refused"
        assert result in refusals()


@pytest.mark.parametrize("spec", ["flash", "s4d", "mamba", "bimamba", "linattn", "gatedlin"])
def test_second_derivatives_work_with_the_reference_as_the_refusal_says(spec):
    linear = ["linear_attention"]
    pins = {"flash": ["attention"], "s4d": ["diagonal_ssm"], "linattn": linear, "gatedlin": linear}.get(
        spec, ["causal_conv", "selective_scan"]
    )
    with use_backend(**dict.fromkeys(pins, "reference")):
        assert outcome("second derivatives (`create_graph=True`)", spec) == "yes"
