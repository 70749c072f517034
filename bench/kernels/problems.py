"""What the suite of kernels computes: inputs that are drawn once, and the definition that everybody must agree with.

Letters: r rows, t frames, c channels, n state, k heads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from temporal_zoo.mixers.bimamba import BiMamba
from temporal_zoo.ops import ops, use_backend
from temporal_zoo.ops.attention import attention
from temporal_zoo.ops.causal_conv import Filter, causal_conv
from temporal_zoo.ops.selective_scan import Direction, selective_scan
from temporal_zoo.registry import build

Inputs = dict[str, Tensor]
Outputs = tuple[Tensor, ...]

SEED = 0
TAPS = 4
_HEAD = 64
# Step sizes of Mamba at the start (arXiv 2312.00752, section 3.6).
_DT_MIN, _DT_MAX = 1e-3, 1e-1


@dataclass(frozen=True)
class Size:
    """Rows, frames, channels (of a mixer: between its projections) and state."""

    rows: int
    frames: int
    width: int = 128
    state: int = 16


@dataclass(frozen=True)
class Subject:
    """One function, and how it is called with the inputs that `draw` makes.

    Args:
        op: the op whose backends compute it.
        title: what it is, in words.
        draw: Size -> inputs by name, float32; the first has the shape of every output.
        run: inputs -> outputs, with the backends that are pinned.
        total_frames: rows x frames of a measurement.
    """

    op: str
    title: str
    draw: Callable[[Size], Inputs]
    run: Callable[[Inputs], Outputs]
    total_frames: int = 8192


def draw(subject: str, size: Size, dtype: torch.dtype = torch.float32) -> tuple[Inputs, Tensor]:
    """Inputs of a subject and the gradient that arrives at each of its outputs; the same numbers in any dtype."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        inputs = SUBJECTS[subject].draw(size)
        torch.manual_seed(SEED + 1)
        upstream = torch.randn(next(iter(inputs.values())).shape)
    return {name: x.detach().to(dtype) for name, x in inputs.items()}, upstream.to(dtype)


@functools.lru_cache(maxsize=2)
def defined(subject: str, size: Size) -> tuple[Outputs, Outputs]:
    """Outputs and gradients by the reference in float64; kept for the next who is compared with them."""
    inputs, upstream = draw(subject, size, torch.float64)
    leaves = [x.requires_grad_() for x in inputs.values()]
    with use_backend(**dict.fromkeys(ops(), "reference")):
        outputs = SUBJECTS[subject].run(inputs)
    gradients = torch.autograd.grad(outputs, leaves, [upstream] * len(outputs))
    return tuple(y.detach() for y in outputs), gradients


def directions(inputs: Mapping[str, Tensor]) -> list[Direction]:
    """The two directions of the inputs of `selective_scan`."""
    names = ("u", "dt", "A", "B", "C", "skip", "dt_bias")
    return [
        Direction(**{name: inputs[f"{name}{side}"] for name in names}, reverse=bool(side)) for side in ("", "_back")
    ]


def _draw_scan(size: Size) -> Inputs:
    shape = (size.rows, size.frames)
    found = {}
    for side in ("", "_back"):
        found[f"u{side}"] = torch.randn(*shape, size.width)
        found[f"dt{side}"] = 0.5 * torch.randn(*shape, size.width)
        found[f"A{side}"] = -torch.arange(1.0, size.state + 1) * (0.5 + torch.rand(size.width, size.state))
        found[f"B{side}"] = torch.randn(*shape, size.state)
        found[f"C{side}"] = torch.randn(*shape, size.state)
        found[f"skip{side}"] = torch.randn(size.width)
        found[f"dt_bias{side}"] = (
            torch.empty(size.width).uniform_(math.log(_DT_MIN), math.log(_DT_MAX)).exp().expm1().log()
        )
    return found | {"gate": torch.randn(*shape, size.width)}


def _draw_conv(size: Size) -> Inputs:
    found = {"x": torch.randn(size.rows, size.frames, size.width)}
    for side in ("", "_back"):
        found |= {f"weight{side}": torch.randn(size.width, TAPS), f"bias{side}": torch.randn(size.width)}
    return found


def _draw_attention(size: Size) -> Inputs:
    heads = max(1, size.width // _HEAD)
    return {name: torch.randn(size.rows, size.frames, heads, size.width // heads) for name in "qkv"}


def _draw_mixer(text: str, size: Size, dim: int) -> Inputs:
    return {"x": torch.randn(size.rows, size.frames, dim), **dict(_module(text, dim).named_parameters())}


def _run_mixer(text: Callable[[Inputs], str], inputs: Inputs) -> Outputs:
    x, parameters = inputs["x"], {name: value for name, value in inputs.items() if name != "x"}
    return (functional_call(_module(text(inputs), x.shape[-1]), parameters, (x,)),)


@functools.cache
def _module(text: str, dim: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
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
}
