"""Small trial runs of every body of every op on this machine: does it run, and does it agree with the reference?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from temporal_zoo.ops._dispatch import REFERENCE, Op, ops

Draw = Callable[..., Tensor]

# Rounding of the number formats, with room for sums over a few dozen terms.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
ROWS, FRAMES, CHANNELS, STATE = 3, 17, 64, 16


def trials() -> Iterator[tuple[str, str, str]]:
    """(op, body, device) of all trials on this machine."""
    for name, op in sorted(ops().items()):
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            for body in op.bodies:
                yield name, body, device


def trial(name: str, body: str, device: str) -> dict[str, Any]:
    """One body on the first of four small examples that it takes: float32, then bfloat16, each padded, then not.

    Returns:
        `dtype` and `padded` of the example that ran, or None; `reasons` why it took none; `error`, the largest
        difference from the float64 reference in values and gradients, relative to the largest entry of each;
        `agrees`, whether that is rounding; `package`, the optional one that the body calls, or None.
    """
    op = ops()[name]
    needs = {"package": (op.package(body) or "").partition(".")[0] or None}
    refused: list[str] = []
    for dtype, padded in itertools.product(TOLERANCE, (True, False)):
        case = Case(device, dtype, padded)
        arguments, keywords, _ = _example(name, case)
        if not (reasons := op.reasons(body, *arguments, **keywords)):
            error = _error(op, body, case)
            agrees = error < TOLERANCE[dtype]
            told = str(dtype).removeprefix("torch.")
            return {"dtype": told, "padded": padded, "reasons": [], "error": error, "agrees": agrees, **needs}
        refused += [reason for reason in reasons if reason not in refused]
    return {"dtype": None, "padded": None, "reasons": refused, "error": None, "agrees": None, **needs}


class Case(NamedTuple):
    """What an example is made of."""

    device: str
    dtype: torch.dtype
    padded: bool


def _error(op: Op, body: str, case: Case) -> float:
    found = _values_and_gradients(op, body, case, exact=False)
    truth = _values_and_gradients(op, REFERENCE, case, exact=True)
    errors = [float((a - b).abs().max() / b.abs().max().clamp_min(1e-6)) for a, b in zip(found, truth, strict=True)]
    # max() would step over a NaN.
    return max(errors) if all(error == error for error in errors) else float("inf")


def _values_and_gradients(op: Op, body: str, case: Case, *, exact: bool) -> list[Tensor]:
    arguments, keywords, leaves = _example(op.name, case, exact=exact)
    result = op(*arguments, backend=body, **keywords)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    # Weights that differ from entry to entry: a plain sum would hide entries that changed places.
    weights = [torch.linspace(-1, 1, y.numel(), device=case.device, dtype=torch.float64).view(y.shape) for y in outputs]
    total = torch.stack([(y.double() * weight).sum() for y, weight in zip(outputs, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(total, leaves)
    return [t.detach().to(torch.complex128 if t.is_complex() else torch.float64) for t in (*outputs, *gradients)]


def _example(name: str, case: Case, *, exact: bool = False) -> tuple[tuple, dict[str, Any], list[Tensor]]:
    """Arguments, keywords and leaves of a small call; `exact` gives the same (rounded) numbers in float64."""
    source = torch.Generator().manual_seed(0)
    leaves: list[Tensor] = []

    def draw(*shape: int, complex_valued: bool = False, low: float = -1, high: float = 1) -> Tensor:
        parts = torch.empty(*shape, 2 if complex_valued else 1, dtype=torch.float64)
        parts = parts.uniform_(low, high, generator=source).to(torch.float32 if complex_valued else case.dtype)
        parts = parts.double() if exact else parts
        leaf = (torch.view_as_complex(parts) if complex_valued else parts.squeeze(-1)).to(case.device).requires_grad_()
        leaves.append(leaf)
        return leaf

    if name not in EXAMPLES:
        raise ValueError(f"the op {name!r} has no example; add one to EXAMPLES in {__name__}")
    lengths = torch.tensor([FRAMES, 1, 11], device=case.device) if case.padded else None
    arguments, keywords = EXAMPLES[name](draw)
    return arguments, keywords | {"lengths": lengths}, leaves


def _selective_scan(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    from temporal_zoo.ops.selective_scan import Direction

    directions = [
        Direction(
            u=draw(ROWS, FRAMES, CHANNELS),
            dt=draw(ROWS, FRAMES, CHANNELS),
            A=draw(CHANNELS, STATE, low=-4, high=-0.1),
            B=draw(ROWS, FRAMES, STATE),
            C=draw(ROWS, FRAMES, STATE),
            skip=draw(CHANNELS),
            dt_bias=draw(CHANNELS),
            reverse=reverse,
        )
        for reverse in (False, True)
    ]
    return (directions, draw(ROWS, FRAMES, CHANNELS)), {}


def _causal_conv(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    from temporal_zoo.ops.causal_conv import Filter

    filters = [Filter(draw(CHANNELS, 4), draw(CHANNELS), reverse=reverse) for reverse in (False, True)]
    return (draw(ROWS, FRAMES, CHANNELS), filters), {"silu": True}


def _diagonal_ssm(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    from temporal_zoo.ops.diagonal_ssm import Modes

    modes = [
        # Inside the unit circle, as the modes of a stable system are.
        Modes(0.6 * draw(CHANNELS, STATE, complex_valued=True), draw(CHANNELS, STATE, complex_valued=True), reverse)
        for reverse in (False, True)
    ]
    return (draw(ROWS, FRAMES, CHANNELS), modes, draw(CHANNELS)), {}


def _attention(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    return tuple(draw(ROWS, FRAMES, 2, 32) for _ in range(3)), {}


EXAMPLES = {
    "selective_scan": _selective_scan,
    "causal_conv": _causal_conv,
    "diagonal_ssm": _diagonal_ssm,
    "attention": _attention,
}
