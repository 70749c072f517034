"""What the kernel suite compares: subjects with their inputs and reference results, and implementations of a subject.

Letters: r rows, t frames, c channels, n state, k heads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from temporal_zoo.mixers.bimamba import BiMamba
from temporal_zoo.ops import ops, use_backend
from temporal_zoo.ops.attention import attention
from temporal_zoo.ops.causal_conv import Filter, causal_conv
from temporal_zoo.ops.linear_attention import linear_attention
from temporal_zoo.ops.ridge_attention import ridge_attention
from temporal_zoo.ops.selective_scan import Direction, selective_scan
from temporal_zoo.registry import build

Inputs = dict[str, Tensor]
Outputs = tuple[Tensor, ...]
Role = Literal["ours", "plain", "installed", "source", "restated"]

_SEED = 0
_TAPS = 4
_HEAD = 64
# Step sizes of Mamba at the start (arXiv 2312.00752, section 3.6).
_DT_MIN, _DT_MAX = 1e-3, 1e-1


@dataclass(frozen=True)
class SubjectSize:
    """Rows, frames, channels (of a mixer: between its projections) and state of the inputs."""

    rows: int
    frames: int
    width: int = 128
    state: int = 16


@dataclass(frozen=True)
class Subject:
    """A function that all its implementations must compute.

    Args:
        op: the op whose backends compute it.
        title: a short description.
        draw: SubjectSize -> inputs by name, float32; every output has the shape of the first input.
        run: inputs -> outputs, with the pinned backends.
        total_frames: rows x frames of a measurement.
    """

    op: str
    title: str
    draw: Callable[[SubjectSize], Inputs]
    run: Callable[[Inputs], Outputs]
    total_frames: int = 8192


def draw(subject: str, size: SubjectSize, dtype: torch.dtype = torch.float32) -> tuple[Inputs, Tensor]:
    """Draws the inputs of a subject and the gradient of each of its outputs; the numbers are the same in any dtype."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        inputs = SUBJECTS[subject].draw(size)
        torch.manual_seed(_SEED + 1)
        upstream = torch.randn(next(iter(inputs.values())).shape)
    return {name: x.detach().to(dtype) for name, x in inputs.items()}, upstream.to(dtype)


@functools.lru_cache(maxsize=2)
def reference_results(subject: str, size: SubjectSize) -> tuple[Outputs, Outputs]:
    """Outputs and gradients of the reference in float64, cached for the next comparison."""
    inputs, upstream = draw(subject, size, torch.float64)
    leaves = [x.requires_grad_() for x in inputs.values()]
    with use_backend(**dict.fromkeys(ops(), "reference")):
        outputs = SUBJECTS[subject].run(inputs)
    gradients = torch.autograd.grad(outputs, leaves, [upstream] * len(outputs))
    return tuple(y.detach() for y in outputs), gradients


@dataclass(frozen=True)
class Implementation:
    """One way to compute a subject.

    Args:
        name: unique within a comparison.
        role: our backend, plain PyTorch, an installed package, a file of `--peers`, or a published algorithm that we
            restated.
        subject: what it computes; an implementation that only sets a scale may compute something else.
        run: inputs -> output or outputs; None when the implementation is missing.
        origin: version, digest of the source, or publication of the algorithm.
        swapped: in its native layout the second and third axis of inputs over frames, and of outputs, are swapped.
        absent: why it is missing, and how to install it.
    """

    name: str
    role: Role
    subject: str
    run: Callable[[Inputs], Tensor | Outputs] | None
    origin: str = ""
    swapped: bool = False
    absent: str = ""


class PreparedCall:
    """An implementation with inputs in its own layout, ready to be checked, timed, or measured for memory."""

    def __init__(self, implementation: Implementation, size: SubjectSize) -> None:
        inputs, upstream = draw(implementation.subject, size)
        self._implementation = implementation
        # Weights have no axis of frames, and the same layout in all implementations.
        self._over_frames = [x.shape[:2] == upstream.shape[:2] for x in inputs.values()]
        leaves = (self._swap(x, over) for x, over in zip(inputs.values(), self._over_frames, strict=True))
        self._leaves = {name: x.requires_grad_() for name, x in zip(inputs, leaves, strict=True)}
        self._upstream = self._swap(upstream)

    def forward(self) -> Outputs:
        """The outputs, without a graph."""
        with torch.no_grad():
            return self._outputs()

    def train(self) -> tuple[Outputs, Outputs]:
        """Outputs, and gradients of all inputs."""
        outputs = self._outputs()
        return outputs, torch.autograd.grad(outputs, list(self._leaves.values()), [self._upstream] * len(outputs))

    def checked(self) -> tuple[Outputs, Outputs]:
        """Outputs and gradients in the layout of our ops."""
        outputs, gradients = self.train()
        back = (self._swap(x, over) for x, over in zip(gradients, self._over_frames, strict=True))
        return tuple(self._swap(y.detach()) for y in outputs), tuple(back)

    def _outputs(self) -> Outputs:
        assert self._implementation.run is not None
        outputs = self._implementation.run(self._leaves)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)

    def _swap(self, x: Tensor, over_frames: bool = True) -> Tensor:
        return x.transpose(1, 2).contiguous() if self._implementation.swapped and over_frames else x


def ours(subject: str) -> list[Implementation]:
    """The backends of the op of a subject, in the order that `auto` tries them."""
    backends = ops()[SUBJECTS[subject].op].backends
    return [
        Implementation(backend, "ours", subject, functools.partial(_pinned, subject, backend)) for backend in backends
    ]


def _pinned(subject: str, backend: str, inputs: Inputs) -> Outputs:
    with use_backend(**{SUBJECTS[subject].op: backend}):
        return SUBJECTS[subject].run(inputs)


def directions(inputs: Mapping[str, Tensor]) -> list[Direction]:
    """The two directions of the inputs of `selective_scan`."""
    names = ("u", "dt", "A", "B", "C", "skip", "dt_bias")
    return [
        Direction(**{name: inputs[f"{name}{side}"] for name in names}, reverse=bool(side)) for side in ("", "_back")
    ]


def _draw_scan(size: SubjectSize) -> Inputs:
    shape = (size.rows, size.frames)
    inputs = {}
    for side in ("", "_back"):
        inputs[f"u{side}"] = torch.randn(*shape, size.width)
        inputs[f"dt{side}"] = 0.5 * torch.randn(*shape, size.width)
        inputs[f"A{side}"] = -torch.arange(1.0, size.state + 1) * (0.5 + torch.rand(size.width, size.state))
        inputs[f"B{side}"] = torch.randn(*shape, size.state)
        inputs[f"C{side}"] = torch.randn(*shape, size.state)
        inputs[f"skip{side}"] = torch.randn(size.width)
        inputs[f"dt_bias{side}"] = (
            torch.empty(size.width).uniform_(math.log(_DT_MIN), math.log(_DT_MAX)).exp().expm1().log()
        )
    return inputs | {"gate": torch.randn(*shape, size.width)}


def _draw_conv(size: SubjectSize) -> Inputs:
    inputs = {"x": torch.randn(size.rows, size.frames, size.width)}
    for side in ("", "_back"):
        inputs |= {f"weight{side}": torch.randn(size.width, _TAPS), f"bias{side}": torch.randn(size.width)}
    return inputs


def _draw_attention(size: SubjectSize) -> Inputs:
    heads = max(1, size.width // _HEAD)
    return {name: torch.randn(size.rows, size.frames, heads, size.width // heads) for name in "qkv"}


def _draw_ridge_attention(size: SubjectSize) -> Inputs:
    inputs = _draw_attention(size)
    rows, frames, heads, features = inputs["q"].shape
    weights = {"beta": torch.rand(rows, frames, heads), "ridge": 0.25 + torch.rand(heads, features)}
    return inputs | weights


def _draw_linear_attention(size: SubjectSize) -> Inputs:
    inputs = _draw_attention(size)
    return inputs | {"norm_q": inputs["q"].relu(), "norm_k": inputs["k"].relu()}


def _draw_mixer(text: str, size: SubjectSize, dim: int) -> Inputs:
    return {"x": torch.randn(size.rows, size.frames, dim), **dict(_module(text, dim).named_parameters())}


def _run_mixer(text: Callable[[Inputs], str], inputs: Inputs) -> Outputs:
    x, parameters = inputs["x"], {name: value for name, value in inputs.items() if name != "x"}
    return (functional_call(_module(text(inputs), x.shape[-1]), parameters, (x,)),)


@functools.cache
def _module(text: str, dim: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return build(text, dim)


def _bimamba(state: int) -> str:
    return f"bimamba:{BiMamba.Config.flavours['vim']}:state={state}"


def _s4d(state: int) -> str:
    return f"s4d:state={state}:bidirectional=no:glu=no"


SUBJECTS = {
    "selective_scan": Subject(
        "selective_scan",
        "gated selective scan, two directions",
        _draw_scan,
        lambda inputs: (selective_scan(directions(inputs), inputs["gate"]),),
    ),
    "bimamba": Subject(
        "selective_scan",
        "whole bimamba mixer (flavour vim)",
        lambda size: _draw_mixer(_bimamba(size.state), size, size.width // 2),
        functools.partial(_run_mixer, lambda inputs: _bimamba(inputs["core.A_log"].shape[1])),
    ),
    "s4d": Subject(
        "diagonal_ssm",
        "S4D from its parameters, one direction",
        lambda size: _draw_mixer(_s4d(size.state), size, size.width),
        functools.partial(_run_mixer, lambda inputs: _s4d(2 * inputs["core.C"].shape[1])),
        total_frames=16384,
    ),
    "causal_conv": Subject(
        "causal_conv",
        "short convolution with SiLU, two directions",
        _draw_conv,
        lambda inputs: causal_conv(
            inputs["x"],
            [
                Filter(inputs["weight"], inputs["bias"]),
                Filter(inputs["weight_back"], inputs["bias_back"], reverse=True),
            ],
            silu=True,
        ),
        total_frames=16384,
    ),
    "attention": Subject(
        "attention",
        f"softmax attention, heads of {_HEAD} features",
        _draw_attention,
        lambda inputs: (attention(inputs["q"], inputs["k"], inputs["v"]),),
        total_frames=16384,
    ),
    "ridge_attention": Subject(
        "ridge_attention",
        f"ridge attention, heads of {_HEAD} features",
        _draw_ridge_attention,
        lambda inputs: (ridge_attention(*(inputs[name] for name in ("q", "k", "v", "beta", "ridge"))),),
        total_frames=16384,
    ),
    "linear_attention": Subject(
        "linear_attention",
        f"linear attention, normalised, heads of {_HEAD} features",
        _draw_linear_attention,
        lambda inputs: (
            linear_attention(inputs["q"], inputs["k"], inputs["v"], norm_q=inputs["norm_q"], norm_k=inputs["norm_k"]),
        ),
        total_frames=16384,
    ),
}
