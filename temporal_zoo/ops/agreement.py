"""Does a backend agree with the reference?  Values and gradients of one call, compared with the reference in float64.

`EXAMPLES` makes the arguments of a call of every op (and of `selective_block`) for any number of rows, frames and
channels.  `error` calls a backend with them and returns the largest relative difference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import REFERENCE, ops, use_backend

Draw = Callable[..., Tensor]
Call = Callable[..., Any]

# Rounding of the number formats, with room for sums over a few hundred terms.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
# A tensor that is zero but for rounding, such as the gradient of the queries of a single frame, is compared with this
# share of the largest tensor: its error is the rounding of terms that cancel.
_FLOOR = 0.1
BLOCK = "selective_block"


class Case(NamedTuple):
    """The size, dtype and device of an example; a padded one has `lengths` from 1 to all frames."""

    device: str
    dtype: torch.dtype
    padded: bool
    rows: int = 3
    frames: int = 17
    channels: int = 64
    state: int = 16


class Example(NamedTuple):
    """Arguments of a call, and those tensors among them that have gradients."""

    arguments: tuple
    keywords: dict[str, Any]
    leaves: list[Tensor]


def call_of(name: str, backend: str) -> Call:
    """The function that runs an op with one backend; of `selective_block`, backends of its parts as "op=x,op=y"."""
    if name == BLOCK:
        from temporal_zoo.ops.selective_block import selective_block

        def block(*arguments: Any, **keywords: Any) -> Tensor:
            with use_backend(**dict(part.split("=") for part in backend.split(","))):
                return selective_block(*arguments, **keywords)

        return block
    return functools.partial(ops()[name], backend=backend)


def error(name: str, call: Call, case: Case) -> float:
    """The largest difference of `call` from the reference in any output or gradient, relative to that tensor.

    Infinite where a value is not finite.  The reference runs in float64 on the same (rounded) inputs.

    Raises:
        BackendError: the backend cannot run this example.
    """
    found = _values_and_gradients(call, example(name, case), case)
    truth = _truth(name, case)
    floor = max(_FLOOR * max(float(x.abs().max()) for x in truth), 1e-6)
    worst = 0.0
    for a, b in zip(found, truth, strict=True):
        if not a.isfinite().all():
            return float("inf")
        worst = max(worst, float((a - b).abs().max()) / max(float(b.abs().max()), floor))
    return worst


def example(name: str, case: Case, *, exact: bool = False) -> Example:
    """Arguments of a call of that size; `exact` gives the same (rounded) numbers in float64.

    Raises:
        InvalidInput: no example is known of that op.
    """
    if name not in EXAMPLES:
        raise InvalidInput(f"the op {name!r} has no example; add one to EXAMPLES in {__name__}")
    source = torch.Generator(case.device).manual_seed(0)
    leaves: list[Tensor] = []

    def draw(*shape: int, complex_valued: bool = False, low: float = -1, high: float = 1) -> Tensor:
        parts = torch.empty(*shape, 2 if complex_valued else 1, dtype=torch.float64, device=case.device)
        parts = parts.uniform_(low, high, generator=source).to(torch.float32 if complex_valued else case.dtype)
        parts = parts.double() if exact else parts
        leaf = (torch.view_as_complex(parts) if complex_valued else parts.squeeze(-1)).requires_grad_()
        leaves.append(leaf)
        return leaf

    arguments, keywords = EXAMPLES[name](draw, case)
    return Example(arguments, keywords | {"lengths": _lengths(case) if case.padded else None}, leaves)


def _lengths(case: Case) -> Tensor:
    """All frames, one frame, and numbers between; one for each row."""
    between = [case.frames, 1, *(1 + 11 * row % case.frames for row in range(2, case.rows))]
    return torch.tensor(between[: case.rows], device=case.device)


# A few, because several backends are compared with each.
@functools.lru_cache(maxsize=16)
def _truth(name: str, case: Case) -> list[Tensor]:
    parts = ("causal_conv", "selective_scan") if name == BLOCK else ()
    reference = ",".join(f"{part}={REFERENCE}" for part in parts) or REFERENCE
    return _values_and_gradients(call_of(name, reference), example(name, case, exact=True), case)


def _values_and_gradients(call: Call, example: Example, case: Case) -> list[Tensor]:
    result = call(*example.arguments, **example.keywords)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    # Weights that differ from entry to entry: a plain sum would hide entries that changed places.
    weights = [torch.linspace(-1, 1, y.numel(), device=case.device, dtype=torch.float64).view(y.shape) for y in outputs]
    total = torch.stack([(y.double() * weight).sum() for y, weight in zip(outputs, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(total, example.leaves)
    return [t.detach().to(torch.complex128 if t.is_complex() else torch.float64) for t in (*outputs, *gradients)]


def _selective_scan(draw: Draw, case: Case) -> tuple[tuple, dict[str, Any]]:
    from temporal_zoo.ops.selective_scan import Direction

    over_frames = case.rows, case.frames
    directions = [
        Direction(
            u=draw(*over_frames, case.channels),
            dt=draw(*over_frames, case.channels),
            A=draw(case.channels, case.state, low=-4, high=-0.1),
            B=draw(*over_frames, case.state),
            C=draw(*over_frames, case.state),
            skip=draw(case.channels),
            dt_bias=draw(case.channels),
            reverse=reverse,
        )
        for reverse in (False, True)
    ]
    return (directions, draw(*over_frames, case.channels)), {}


def _causal_conv(draw: Draw, case: Case) -> tuple[tuple, dict[str, Any]]:
    from temporal_zoo.ops.causal_conv import Filter

    filters = [Filter(draw(case.channels, 4), draw(case.channels), reverse=reverse) for reverse in (False, True)]
    return (draw(case.rows, case.frames, case.channels), filters), {"silu": True}


def _diagonal_ssm(draw: Draw, case: Case) -> tuple[tuple, dict[str, Any]]:
    from temporal_zoo.ops.diagonal_ssm import Modes

    shape = case.channels, case.state
    modes = [
        # Inside the unit circle, as the modes of a stable system are.
        Modes(draw(*shape, complex_valued=True, low=-0.6, high=0.6), draw(*shape, complex_valued=True), reverse)
        for reverse in (False, True)
    ]
    return (draw(case.rows, case.frames, case.channels), modes, draw(case.channels)), {}


def _attention(draw: Draw, case: Case) -> tuple[tuple, dict[str, Any]]:
    return tuple(draw(case.rows, case.frames, 2, case.channels // 2) for _ in range(3)), {}


def _selective_block(draw: Draw, case: Case) -> tuple[tuple, dict[str, Any]]:
    from temporal_zoo.ops.selective_block import Affine, Branch

    inner, rank, wide = case.channels, max(1, case.channels // 16), case.channels**-0.5
    x = draw(case.rows, case.frames, inner // 2)
    in_proj = Affine(draw(2 * inner, inner // 2, low=-wide, high=wide))
    branches = [
        Branch(
            conv_weight=draw(inner, 4),
            conv_bias=draw(inner),
            x_proj=draw(rank + 2 * case.state, inner, low=-wide, high=wide),
            dt_proj=draw(inner, rank),
            dt_bias=draw(inner),
            A=draw(inner, case.state, low=-4, high=-0.1),
            skip=draw(inner),
            reverse=reverse,
        )
        for reverse in (False, True)
    ]
    return (x, in_proj, branches, Affine(draw(inner // 2, inner, low=-wide, high=wide))), {}


EXAMPLES: dict[str, Callable[[Draw, Case], tuple[tuple, dict[str, Any]]]] = {
    "selective_scan": _selective_scan,
    "causal_conv": _causal_conv,
    "diagonal_ssm": _diagonal_ssm,
    "attention": _attention,
    BLOCK: _selective_block,
}
