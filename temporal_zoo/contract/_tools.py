"""Checks with the tools of torch: derivatives of every kind, layers that are replaced or have hooks, half precision.

A mixer may refuse a tool: it raises a `UserError` that says what works instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from temporal_zoo.contract._common import (
    TOLERANCE,
    ContractError,
    Make,
    ragged,
    require,
    require_same,
    rms_error,
    with_nonzero_weights,
)
from temporal_zoo.errors import UserError
from temporal_zoo.interface import Mixer

T = TypeVar("T")

STEP = 1e-6  # of finite differences in float64
LAYERS = (nn.Linear, nn.Conv1d)
SCALE = 1.5  # factor of the output of a replaced layer


def check_forward_mode(make: Make) -> None:
    """Forward-mode derivatives (`jvp`, dual numbers) are correct or raise a UserError; they are never silently zero."""
    mixer = with_nonzero_weights(make).double()
    x, v = torch.randn(2, 2, 5, mixer.dim, dtype=torch.float64)
    for frozen in (False, True):
        mixer.requires_grad_(not frozen)
        expected = _difference(mixer, x, v)
        for tool, tangent in (("torch.func.jvp", _by_jvp), ("a dual number", _by_dual_number)):
            result = _result(tool, tangent, mixer, x, v)
            if result is not None:
                state = "frozen" if frozen else "trainable"
                require_same(
                    result,
                    expected,
                    f"with {state} weights {tool} gives a wrong derivative: consistency models would train on it",
                )
    parameters = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    _check_parameters(mixer, x, parameters)


def check_gradients_of_tangents(make: Make) -> None:
    """Gradients of a loss of forward-mode derivatives (as in MeanFlow) are correct, or raise a UserError."""
    mixer = with_nonzero_weights(make).double()
    x, v, weights = torch.randn(3, 2, 5, mixer.dim, dtype=torch.float64)

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        parameters = dict(mixer.named_parameters())
        # With the input there is a gradient for a mixer without parameters too.
        values = torch.autograd.grad(loss + 0 * x.sum(), [*parameters.values(), x], materialize_grads=True)
        return dict(zip([*parameters, "the input"], values, strict=True))

    def gradients_of_jvp() -> dict[str, Tensor]:
        return gradients((_by_jvp(mixer, x, v) * weights).sum())

    x.requires_grad_()
    results = _result("the gradient of a jvp", gradients_of_jvp)
    if results is not None:
        ahead, behind = (gradients((mixer(x + step * v) * weights).sum()) for step in (STEP, -STEP))
        for name, gradient in results.items():
            expected = (ahead[name] - behind[name]) / (2 * STEP)
            error = float((gradient - expected).detach().abs().max() / ahead[name].detach().abs().max().clamp(min=1e-6))
            require(
                error < TOLERANCE,
                f"the gradient of a jvp is wrong for {name}: a loss of derivatives would train it wrongly",
            )


def check_transforms(make: Make) -> None:
    """`vmap`, `func.grad` and gradients per sample (`vmap` of `grad`) are correct, or raise a UserError."""
    mixer = with_nonzero_weights(make)
    x, weights = torch.randn(2, 3, 5, mixer.dim)
    parameters = {name: parameter.detach() for name, parameter in mixer.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, weights: Tensor) -> Tensor:
        return (functional_call(mixer, parameters, (x[None],)) * weights).sum()

    batched = _result("vmap", vmap(mixer), torch.stack([x, weights]))
    if batched is not None:
        require_same(batched[1], mixer(weights), "vmap gives another output: ensembles would be of another mixer")
    expected = [_gradients(mixer, x[row : row + 1], weights[row]) for row in range(len(x))]
    gradient = grad(loss, argnums=(0, 1))
    one = _result("torch.func.grad", gradient, parameters, x[0], weights[0])
    if one is not None:
        _require_same_gradients(one[0], one[1], expected[0], "torch.func.grad")
    each = _result("vmap of grad", vmap(gradient, (None, 0, 0)), parameters, x, weights)
    if each is not None:
        for row in range(len(x)):
            by_name = {name: values[row] for name, values in each[0].items()}
            _require_same_gradients(by_name, each[1][row], expected[row], f"vmap of grad, for sample {row},")


def check_second_derivatives(make: Make) -> None:
    """The gradient of a gradient (a gradient penalty, a Hessian times a vector) is correct, or raises a UserError."""
    mixer = with_nonzero_weights(make).double()
    x, v = torch.randn(2, 2, 5, mixer.dim, dtype=torch.float64)

    def gradient(x: Tensor) -> Tensor:
        return torch.autograd.grad(mixer(x).square().sum(), x, create_graph=True)[0]

    def hessian_times_v(x: Tensor) -> Tensor:
        return torch.autograd.grad((gradient(x) * v).sum(), x)[0]

    result = _result("a second derivative", hessian_times_v, x.requires_grad_())
    if result is not None:
        expected = (gradient(x + STEP * v) - gradient(x - STEP * v)) / (2 * STEP)
        require_same(result, expected, "the second derivative is wrong: a gradient penalty would have a wrong gradient")


def check_replaced_layers(make: Make) -> None:
    """The mixer calls a wrapper around a layer (LoRA) and trains it, or raises a UserError that names the layer."""
    mixer = with_nonzero_weights(make)
    x, lengths = ragged(mixer)
    for name, layer in _layers(mixer):
        expected = _merged(mixer, layer, x, lengths)
        parent, _, child = name.rpartition(".")
        wrapper = _Scaled(layer)
        setattr(mixer.get_submodule(parent), child, wrapper)
        try:
            y = mixer(x, lengths)
            (gradient,) = torch.autograd.grad(y.square().sum(), wrapper.scale, allow_unused=True)
        except UserError as refusal:
            require(child in str(refusal), f"the error about a wrapped {name} does not name it: {refusal}")
        else:
            require_same(
                y,
                expected,
                f"a wrapper around {name} is not called: an adapter would have no effect until it is merged",
            )
            learns = gradient is not None and bool(gradient.any())
            require(learns, f"a wrapper around {name} gets no gradient: an adapter would never learn")
        finally:
            setattr(mixer.get_submodule(parent), child, layer)


def check_hooks(make: Make) -> None:
    """Forward and backward hooks on a layer run, and the mixer uses what they return; pruning needs this."""
    mixer = with_nonzero_weights(make)
    x, lengths = ragged(mixer)
    x.requires_grad_()
    for name, layer in _layers(mixer):
        expected = _merged(mixer, layer, x, lengths)
        ran: set[str] = set()
        hooks = [
            layer.register_forward_pre_hook(lambda *_, ran=ran: ran.add("forward pre-hook")),
            layer.register_forward_hook(lambda module, inputs, output: output * SCALE),
            layer.register_full_backward_hook(lambda *_, ran=ran: ran.add("full backward hook")),
        ]
        try:
            y = mixer(x, lengths)
            y.square().sum().backward()
        finally:
            for hook in hooks:
                hook.remove()
        require_same(y, expected, f"a forward hook on {name} has no effect: pruning would have no effect")
        for kind in ("forward pre-hook", "full backward hook"):
            require(
                kind in ran, f"a {kind} on {name} does not run: tools that need it would do nothing, without an error"
            )


def check_half_weights(make: Make) -> None:
    """With weights in bfloat16 the output is bfloat16 and near that of float32, or the mixer raises a UserError."""
    mixer = with_nonzero_weights(make)
    x = torch.randn(2, 7, mixer.dim)
    with torch.no_grad():
        expected = mixer(x)
        result = _result("bfloat16", mixer.bfloat16(), x.bfloat16())
    if result is not None:
        require(result.dtype == torch.bfloat16, f"with weights in bfloat16, bfloat16 becomes {result.dtype}")
        error = rms_error(result, expected)
        require(
            error < 0.05, f"weights in bfloat16 change the output by {error:.0%}: it would sample from another model"
        )


class _Scaled(nn.Module):
    """A layer times a trainable factor, with the attributes of the layer, as adapters have them."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.scale = nn.Parameter(torch.tensor(SCALE))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.scale


def _layers(mixer: Mixer) -> Iterator[tuple[str, nn.Module]]:
    """The layers that a tool may replace or add hooks to, with their names."""
    return ((name, layer) for name, layer in list(mixer.named_modules()) if isinstance(layer, LAYERS))


def _merged(mixer: Mixer, layer: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """The output of the mixer if the parameters of the layer are multiplied by `SCALE`."""
    with torch.no_grad():
        before = [parameter.clone() for parameter in layer.parameters()]
        for parameter in layer.parameters():
            parameter.mul_(SCALE)
        y = mixer(x, lengths)
        for parameter, value in zip(layer.parameters(), before, strict=True):
            parameter.copy_(value)
    return y


def _result(tool: str, function: Callable[..., T], *args: Any) -> T | None:
    """The result of a tool; None if the mixer raises a `UserError`."""
    try:
        with warnings.catch_warnings():
            # torch scripts some of its own formulas and then warns about it.
            warnings.simplefilter("ignore", DeprecationWarning)
            return function(*args)
    except UserError:
        return None
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ContractError(
            f"{tool} fails with {type(error).__name__} ({reason}): a UserError would say what works instead"
        ) from error


def _by_jvp(mixer: Mixer, x: Tensor, v: Tensor) -> Tensor:
    return jvp(mixer, (x,), (v,))[1]


def _by_dual_number(mixer: Mixer, x: Tensor, v: Tensor) -> Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(mixer(forward_ad.make_dual(x, v))).tangent
    return torch.zeros_like(x) if tangent is None else tangent


def _difference(mixer: Mixer, x: Tensor, v: Tensor) -> Tensor:
    """The directional derivative along v, by central differences."""
    with torch.no_grad():
        return (mixer(x + STEP * v) - mixer(x - STEP * v)) / (2 * STEP)


def _check_parameters(mixer: Mixer, x: Tensor, parameters: dict[str, Tensor]) -> None:
    """Checks that the derivative along a direction of one parameter is the gradient times the direction."""
    weights = torch.randn_like(x)
    gradients = _gradients(mixer.requires_grad_(), x, weights)
    for name, parameter in parameters.items():
        direction = torch.randn_like(parameter)

        def run(value: Tensor, name: str = name) -> Tensor:
            return (functional_call(mixer, {**parameters, name: value}, (x,)) * weights).sum()

        result = _result("torch.func.jvp", jvp, run, (parameter,), (direction,))
        if result is not None:
            expected = (gradients[name] * direction).sum()
            require_same(result[1], expected, f"torch.func.jvp gives a wrong derivative along {name}")


def _gradients(mixer: Mixer, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Gradients of sum(weights * y) by name, by autograd."""
    x = x.detach().requires_grad_()
    inputs = dict(mixer.named_parameters()) | {"the input": x}
    gradients = torch.autograd.grad((mixer(x) * weights).sum(), list(inputs.values()), materialize_grads=True)
    return dict(zip(inputs, gradients, strict=True))


def _require_same_gradients(
    by_name: dict[str, Tensor], of_input: Tensor, expected: dict[str, Tensor], tool: str
) -> None:
    for name, gradient in {**by_name, "the input": of_input[None]}.items():
        require_same(gradient, expected[name], f"{tool} is wrong for {name}: it is not the gradient that training uses")
