"""Compares a backend with the reference of its op: values and gradients.

This is the one comparison that `zoo doctor`, the benchmarks, the contract and the tests use.  `compare` takes tensors
by name.  `check` calls a backend with the example inputs of its op (`ops/NAME/example.py`) and compares it with the
reference in float64.  `try_backend` does so for one backend on this machine.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import REFERENCE, folders, ops, pins_from_text, use_backend

Draw = Callable[..., Tensor]
Call = Callable[..., Any]


class Limit(NamedTuple):
    """How far a tensor may differ from the reference.

    Args:
        tolerance: largest difference between entries, relative to the largest entry of the reference's tensor.
        floor: the least that a difference is relative to, as a fraction of the largest entry of all tensors.  A
            gradient that is zero but for rounding (of the queries of a single frame, of a key bias) consists of the
            rounding of terms that cancel, and these are as large as the other tensors.
    """

    tolerance: float
    floor: float


# Tolerances leave room for sums over a few hundred terms, and are far below the effect of a wrong term.  Floors keep
# tolerance x floor (1e-6, 2e-3, 5e-3) above the rounding of one term: 6e-8, 5e-4 and 4e-3 of the largest entry.
LIMITS = {
    torch.float32: Limit(1e-4, 1e-2),
    torch.float16: Limit(2e-2, 1e-1),
    torch.bfloat16: Limit(5e-2, 1e-1),
}
# The dtypes in which `try_backend` tries a backend, in this order.
_TRIED = (torch.float32, torch.bfloat16)
# Below this every tensor is zero.
_ZERO = 1e-6


class Comparison(NamedTuple):
    """The largest relative difference, the tensor that has it, and the tolerance.

    The error is infinite where a value is missing or not finite.
    """

    error: float
    worst: str
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is rounding."""
        return self.error <= self.tolerance


def compare(computed: Mapping[str, Tensor | None], truth: Mapping[str, Tensor], dtype: torch.dtype) -> Comparison:
    """Compares tensors with those of a reference, by name.

    Args:
        computed: at least the names of `truth`.
        truth: what the reference computed, in any dtype.
        dtype: the dtype that `computed` was computed in; it selects the row of `LIMITS`.
    """
    limit = LIMITS[dtype]
    largest = {name: float(x.abs().max()) if x.numel() else 0.0 for name, x in truth.items()}
    floor = max(limit.floor * max(largest.values()), _ZERO)
    errors = {name: _difference(computed.get(name), x) / max(largest[name], floor) for name, x in truth.items()}
    worst = max(errors, key=lambda name: errors[name])
    return Comparison(errors[worst], worst, limit.tolerance)


def _difference(computed: Tensor | None, truth: Tensor) -> float:
    if computed is None or computed.shape != truth.shape or not computed.isfinite().all():
        return math.inf
    wide = torch.complex128 if truth.is_complex() else torch.float64
    return float((computed.to(wide) - truth.to(wide)).abs().max()) if truth.numel() else 0.0


class Setting(NamedTuple):
    """The size, dtype and device of an example; a padded one has `lengths` from 1 to all frames."""

    device: str
    dtype: torch.dtype
    padded: bool
    rows: int = 3
    frames: int = 17
    channels: int = 64
    state: int = 16


class Example(NamedTuple):
    """Arguments of a call, and the tensors among them that have gradients."""

    arguments: tuple
    keywords: dict[str, Any]
    leaves: list[Tensor]


def example(name: str, case: Setting, *, exact: bool = False) -> Example:
    """Arguments of a call of an op, at the size of `case`; `exact` gives the same (rounded) numbers in float64.

    Raises:
        InvalidInput: the op has no example.
    """
    source = torch.Generator(case.device).manual_seed(0)
    leaves: list[Tensor] = []

    def draw(*shape: int, complex_valued: bool = False, low: float = -1, high: float = 1) -> Tensor:
        parts = torch.empty(*shape, 2 if complex_valued else 1, dtype=torch.float64, device=case.device)
        parts = parts.uniform_(low, high, generator=source).to(torch.float32 if complex_valued else case.dtype)
        parts = parts.double() if exact else parts
        leaf = (torch.view_as_complex(parts) if complex_valued else parts.squeeze(-1)).requires_grad_()
        leaves.append(leaf)
        return leaf

    arguments, keywords = _module(name).example(draw, case)
    return Example(arguments, keywords | {"lengths": _lengths(case) if case.padded else None}, leaves)


def examples() -> list[str]:
    """The names that `example`, `call_of` and `check` take: all ops, and functions that are composed of ops."""
    return list(folders())


def parts(name: str) -> tuple[str, ...]:
    """The ops whose backends a function runs: the op itself, or those that the function is composed of."""
    return getattr(_module(name), "PARTS", (name,))


def call_of(name: str, backend: str) -> Call:
    """The function that runs an op with one backend; of a composed function with backends as "op=x,op=y"."""
    if name in ops():
        return functools.partial(ops()[name], backend=backend)
    function, pins = getattr(import_module(f"temporal_zoo.ops.{name}"), name), pins_from_text(backend)

    def pinned(*arguments: Any, **keywords: Any) -> Any:
        with use_backend(**pins):
            return function(*arguments, **keywords)

    return pinned


def refusals(name: str, backend: str, case: Setting) -> list[str]:
    """Why a backend cannot run the example; empty when it can.  A composed function says so only when it is called."""
    if name not in ops():
        return []
    arguments, keywords, _ = example(name, case)
    return ops()[name].reasons(backend, *arguments, **keywords)


def check(name: str, call: Call, case: Setting) -> Comparison:
    """Compares `call` on the example of that case with the float64 reference on the same (rounded) inputs.

    Raises:
        BackendError: the backend cannot run this example.
    """
    return compare(_values_and_gradients(call, example(name, case), case), _truth(name, case), case.dtype)


def trials() -> Iterator[tuple[str, str, str]]:
    """(op, backend, device) of everything that `try_backend` can try on this machine."""
    for name, op in sorted(ops().items()):
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            for backend in op.tried(device):
                yield name, backend, device


def try_backend(name: str, backend: str, device: str) -> dict[str, Any]:
    """Runs a backend on the first of four small examples that it takes: float32, then bfloat16, padded, then not.

    Returns:
        `dtype` and `padded` of the example that ran, or None; `reasons` why it took none; `error`, the largest
        relative difference from the reference; `agrees`, whether that is rounding; `package`, the optional one that
        the backend calls, or None; `confirmed`, what shows that the backend is right, or None.
    """
    op = ops()[name]
    facts = {
        "package": (op.package(backend) or "").partition(".")[0] or None,
        "confirmed": op.confirmed(backend, device),
    }
    refused: list[str] = []
    for dtype, padded in itertools.product(_TRIED, (True, False)):
        case = Setting(device, dtype, padded)
        if not (reasons := refusals(name, backend, case)):
            result = check(name, call_of(name, backend), case)
            ran = {"dtype": str(dtype).removeprefix("torch."), "padded": padded, "reasons": []}
            return ran | {"error": result.error, "agrees": result.agrees} | facts
        refused += [reason for reason in reasons if reason not in refused]
    return {"dtype": None, "padded": None, "reasons": refused, "error": None, "agrees": None, **facts}


def _module(name: str) -> Any:
    try:
        return import_module(f"temporal_zoo.ops.{name}.example")
    except ModuleNotFoundError as error:
        raise InvalidInput(f"the op {name!r} has no example; add the file ops/{name}/example.py") from error


def _lengths(case: Setting) -> Tensor:
    """All frames, one frame, and numbers between; one for each row."""
    between = [case.frames, 1, *(1 + 11 * row % case.frames for row in range(2, case.rows))]
    return torch.tensor(between[: case.rows], device=case.device)


# A few, because several backends are compared with each.
@functools.lru_cache(maxsize=16)
def _truth(name: str, case: Setting) -> dict[str, Tensor]:
    reference = REFERENCE if name in ops() else ",".join(f"{part}={REFERENCE}" for part in parts(name))
    return _values_and_gradients(call_of(name, reference), example(name, case, exact=True), case)


def _values_and_gradients(call: Call, example: Example, case: Setting) -> dict[str, Tensor]:
    result = call(*example.arguments, **example.keywords)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    # Weights that differ from entry to entry: a plain sum would hide entries that changed places.
    weights = [torch.linspace(-1, 1, y.numel(), device=case.device, dtype=torch.float64).view(y.shape) for y in outputs]
    total = torch.stack([(y.double() * weight).sum() for y, weight in zip(outputs, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(total, example.leaves)
    named = {f"output {index}": y.detach() for index, y in enumerate(outputs)}
    return named | {f"gradient of input {index}": x for index, x in enumerate(gradients)}
