"""What other people's tools find: derivatives of every kind, layers that are replaced or watched, half precision.

A mixer may refuse a tool.  It then raises a `UserError` that says what works instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from temporal_zoo.contract._probe import SAME, ContractError, Make, awake, distance, ragged, require, same
from temporal_zoo.errors import UserError
from temporal_zoo.interface import Mixer

T = TypeVar("T")

STEP = 1e-6  # of finite differences in float64
LAYERS = (nn.Linear, nn.Conv1d)
SCALE = 1.5  # a replaced layer's output is multiplied by this


def check_forward_mode(make: Make) -> None:
    """Forward-mode derivatives (`jvp`, dual numbers) are right, or refused in words; they are never zero instead."""
    mixer = awake(make).double()
    x, v = torch.randn(2, 2, 5, mixer.dim, dtype=torch.float64)
    for frozen in (False, True):
        mixer.requires_grad_(not frozen)
        wanted = _difference(mixer, x, v)
        for tool, tangent in (("torch.func.jvp", _by_jvp), ("a dual number", _by_dual_number)):
            found = _offered(tool, tangent, mixer, x, v)
            if found is not None:
                state = "frozen" if frozen else "trainable"
                same(
                    found,
                    wanted,
                    f"with {state} weights {tool} gives a wrong derivative: consistency models would train on it",
                )
    parameters = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    _check_parameters(mixer, x, parameters)


def check_gradients_of_tangents(make: Make) -> None:
    """A loss of forward-mode derivatives (MeanFlow's) gives every weight its gradient, or is refused in words."""
    mixer = awake(make).double()
    x, v, weights = torch.randn(3, 2, 5, mixer.dim, dtype=torch.float64)

    def slopes(loss: Tensor) -> dict[str, Tensor]:
        parameters = dict(mixer.named_parameters())
        # The input is there for the mixer without parameters.
        found = torch.autograd.grad(loss + 0 * x.sum(), [*parameters.values(), x], materialize_grads=True)
        return dict(zip([*parameters, "the input"], found, strict=True))

    def trained() -> dict[str, Tensor]:
        return slopes((_by_jvp(mixer, x, v) * weights).sum())

    x.requires_grad_()
    found = _offered("the gradient of a jvp", trained)
    if found is not None:
        ahead, behind = (slopes((mixer(x + step * v) * weights).sum()) for step in (STEP, -STEP))
        for name, slope in found.items():
            wanted = (ahead[name] - behind[name]) / (2 * STEP)
            moved = float((slope - wanted).detach().abs().max() / ahead[name].detach().abs().max().clamp(min=1e-6))
            require(moved < SAME, f"the gradient of a jvp is wrong for {name}: a loss of derivatives would misguide it")


def check_transforms(make: Make) -> None:
    """`vmap`, `func.grad` and gradients per sample (`vmap` of `grad`) are right, or refused in words."""
    mixer = awake(make)
    x, weights = torch.randn(2, 3, 5, mixer.dim)
    parameters = {name: parameter.detach() for name, parameter in mixer.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, weights: Tensor) -> Tensor:
        return (functional_call(mixer, parameters, (x[None],)) * weights).sum()

    many = _offered("vmap", vmap(mixer), torch.stack([x, weights]))
    if many is not None:
        same(many[1], mixer(weights), "vmap computes something else: ensembles and probes would be of another mixer")
    wanted = [_slopes(mixer, x[row : row + 1], weights[row]) for row in range(len(x))]
    slopes = grad(loss, argnums=(0, 1))
    found = _offered("torch.func.grad", slopes, parameters, x[0], weights[0])
    if found is not None:
        _same_slopes(found[0], found[1], wanted[0], "torch.func.grad")
    each = _offered("vmap of grad", vmap(slopes, (None, 0, 0)), parameters, x, weights)
    if each is not None:
        for row in range(len(x)):
            by_name = {name: slope[row] for name, slope in each[0].items()}
            _same_slopes(by_name, each[1][row], wanted[row], f"vmap of grad, for sample {row},")


def check_second_derivatives(make: Make) -> None:
    """A gradient of a gradient (a penalty, a Hessian times a vector) is right, or refused in words."""
    mixer = awake(make).double()
    x, v = torch.randn(2, 2, 5, mixer.dim, dtype=torch.float64)

    def slope(x: Tensor) -> Tensor:
        return torch.autograd.grad(mixer(x).square().sum(), x, create_graph=True)[0]

    def curve(x: Tensor) -> Tensor:
        return torch.autograd.grad((slope(x) * v).sum(), x)[0]

    found = _offered("a second derivative", curve, x.requires_grad_())
    if found is not None:
        wanted = (slope(x + STEP * v) - slope(x - STEP * v)) / (2 * STEP)
        same(found, wanted, "the second derivative is wrong: a gradient penalty would pull somewhere else")


def check_replaced_layers(make: Make) -> None:
    """A layer that is wrapped (LoRA, quantisation) is called, and the wrapper learns; or it is refused by its name."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    for name, layer in _layers(mixer):
        wanted = _merged(mixer, layer, x, lengths)
        parent, _, child = name.rpartition(".")
        wrapper = _Scaled(layer)
        setattr(mixer.get_submodule(parent), child, wrapper)
        try:
            y = mixer(x, lengths)
            (slope,) = torch.autograd.grad(y.square().sum(), wrapper.scale, allow_unused=True)
        except UserError as refusal:
            require(child in str(refusal), f"the refusal of a wrapped {name} does not name it: {refusal}")
        else:
            same(y, wanted, f"a wrapper around {name} is bypassed: an adapter would have no effect until it is merged")
            learns = slope is not None and bool(slope.any())
            require(learns, f"a wrapper around {name} gets no gradient: an adapter would never learn")
        finally:
            setattr(mixer.get_submodule(parent), child, layer)


def check_hooks(make: Make) -> None:
    """Hooks on a layer run, forward and backward, and what they return is used; pruning is made of them."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    x.requires_grad_()
    for name, layer in _layers(mixer):
        wanted = _merged(mixer, layer, x, lengths)
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
        same(y, wanted, f"a forward hook on {name} changes nothing: pruning and probes would be of another mixer")
        for kind in ("forward pre-hook", "full backward hook"):
            require(kind in ran, f"a {kind} on {name} never runs: whatever relies on it would silently do nothing")


def check_half_weights(make: Make) -> None:
    """With its weights in bfloat16 it computes nearly the same, and keeps the dtype; or it is refused in words."""
    mixer = awake(make)
    x = torch.randn(2, 7, mixer.dim)
    with torch.no_grad():
        wanted = mixer(x)
        found = _offered("bfloat16", mixer.bfloat16(), x.bfloat16())
    if found is not None:
        require(found.dtype == torch.bfloat16, f"with weights in bfloat16, bfloat16 became {found.dtype}")
        moved = distance(found, wanted)
        require(moved < 0.05, f"weights in bfloat16 move the output by {moved:.0%}: it would sample from another model")


class _Scaled(nn.Module):
    """A layer with a factor that learns behind it, made up as the layer itself: what adapters look like."""

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
    """The layers that a tool may replace or watch, by name."""
    return ((name, layer) for name, layer in list(mixer.named_modules()) if isinstance(layer, LAYERS))


def _merged(mixer: Mixer, layer: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """What the mixer computes when the layer's own parameters are multiplied by `SCALE`."""
    with torch.no_grad():
        before = [parameter.clone() for parameter in layer.parameters()]
        for parameter in layer.parameters():
            parameter.mul_(SCALE)
        y = mixer(x, lengths)
        for parameter, value in zip(layer.parameters(), before, strict=True):
            parameter.copy_(value)
    return y


def _offered(tool: str, attempt: Callable[..., T], *args: Any) -> T | None:
    """What a tool finds; None where the mixer refuses it in words."""
    try:
        with warnings.catch_warnings():
            # torch's own: it still scripts some of its formulas.
            warnings.simplefilter("ignore", DeprecationWarning)
            return attempt(*args)
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
    """The derivative along v, by central differences."""
    with torch.no_grad():
        return (mixer(x + STEP * v) - mixer(x - STEP * v)) / (2 * STEP)


def _check_parameters(mixer: Mixer, x: Tensor, parameters: dict[str, Tensor]) -> None:
    """The derivative along a direction of one parameter is the gradient times that direction."""
    weights = torch.randn_like(x)
    slopes = _slopes(mixer.requires_grad_(), x, weights)
    for name, parameter in parameters.items():
        direction = torch.randn_like(parameter)

        def run(value: Tensor, name: str = name) -> Tensor:
            return (functional_call(mixer, {**parameters, name: value}, (x,)) * weights).sum()

        found = _offered("torch.func.jvp", jvp, run, (parameter,), (direction,))
        if found is not None:
            wanted = (slopes[name] * direction).sum()
            same(found[1], wanted, f"torch.func.jvp gives a wrong derivative along {name}")


def _slopes(mixer: Mixer, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Gradients of sum(weights * y) by name, by autograd."""
    x = x.detach().requires_grad_()
    wanted = dict(mixer.named_parameters()) | {"the input": x}
    found = torch.autograd.grad((mixer(x) * weights).sum(), list(wanted.values()), materialize_grads=True)
    return dict(zip(wanted, found, strict=True))


def _same_slopes(by_name: dict[str, Tensor], of_input: Tensor, wanted: dict[str, Tensor], tool: str) -> None:
    for name, slope in {**by_name, "the input": of_input[None]}.items():
        same(slope, wanted[name], f"{tool} is wrong for {name}: it is not the gradient that training uses")
