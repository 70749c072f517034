"""Times one op at one size: its backends and torch's own kernels, beside the limits of the GPU.

Implementations that differ from the float64 reference are not timed.  Before every turn the device writes a buffer that
is larger than the L2 cache.  This is not timed, and Python launches the next kernels meanwhile, so that the times are
those of the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.sweep.outcome import first_line
from temporal_zoo.ops import BackendError, ops
from temporal_zoo.ops.agreement import Call, Example, Setting, call_of, check, example

from . import ceilings
from .exceptions import context_error

MODES = ("forward", "train")
# Seconds for the rounds of one implementation in one mode; a CPU only runs rehearsals.
_BUDGET_S = {"cuda": 0.3, "cpu": 0.01}
_MIN_ROUNDS, _MAX_ROUNDS = 5, 40
# An implementation whose first run takes longer has one round.
_SLOW_S = 1.0
_CHECKED_ROWS = 3
_SDPA = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION,
         "efficient": SDPBackend.EFFICIENT_ATTENTION}  # fmt: skip
# Parts of the message of a RuntimeError if the selected kernel does not support the inputs.
_NO_KERNEL = ("No available kernel", "No viable backend")


@dataclass(frozen=True)
class TimedCall:
    """One way to compute an op; `role` is "ours", "torch" or "compiled" (by `torch.compile`)."""

    name: str
    role: str
    call: Call


def kernels(
    what: Mapping[str, Any], device: str, note: Callable[[str], object], without: Sequence[str]
) -> dict[str, Any]:
    """Times all implementations of an op at one size, and computes its floors.

    Args:
        what: `op`, `rows`, `frames`, `channels`, `dtype`; with `compiled` only the reference through `torch.compile`.
        note: receives the name of each implementation before it runs.
        without: implementations that ended the process in an earlier attempt.
    """
    op, dtype = what["op"], getattr(torch, what["dtype"])
    case = Setting(device, dtype, False, what["rows"], what["frames"], what["channels"])
    inputs = example(op, case)
    answers: dict[str, dict[str, Any]] = {}
    steps: dict[str, TimedCall] = {}
    for each in implementations(op, compiled=what.get("compiled", False)):
        note(each.name)
        answers[each.name] = {"role": each.role, **_checked(each, op, case, inputs, each.name in without)}
        if answers[each.name]["outcome"] == "ok":
            steps[each.name] = each
    for mode in MODES:
        for name, answer in _timed(steps, mode, inputs, device, note).items():
            answers[name] |= answer
    limits = ceilings.measured(device)
    return {"outcome": "ok", "contenders": answers, "ceilings": limits, "floors_ms": _floors(op, case, inputs, limits)}


def implementations(op: str, *, compiled: bool) -> Iterator[TimedCall]:
    """All implementations of an op: our backends in the order that `auto` tries, then torch's own kernels."""
    reference = import_module(f"temporal_zoo.ops.{op}.reference")
    if compiled:
        yield TimedCall("reference, compiled", "compiled", torch.compile(reference.run, dynamic=False))
        return
    for name in ops()[op].backends:
        # A reference that loops over the frames is not timed.
        if not (name == "reference" and getattr(reference, "LOOPS", False)):
            yield TimedCall(name, "ours", call_of(op, name))
    if op == "attention":
        for name, kernel in _SDPA.items():
            yield TimedCall(f"SDPA, {name}", "torch", functools.partial(_attention, kernel))


def _attention(kernel: SDPBackend, q: Tensor, k: Tensor, v: Tensor, *, lengths: None = None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with sdpa_kernel(kernel):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _checked(each: TimedCall, op: str, case: Setting, inputs: Example, crashed: bool) -> dict[str, Any]:
    """Compares an implementation with the reference on a few rows; returns the outcome."""
    if crashed:
        return {"outcome": "crashed", "reason": "it ended the process of an earlier attempt"}
    if each.role == "ours" and (reasons := ops()[op].reasons(each.name, *inputs.arguments, **inputs.keywords)):
        return {"outcome": "unsupported", "reason": "; ".join(reasons)}
    # torch.compile compiles again for another number of rows.
    rows = case.rows if each.role == "compiled" else min(case.rows, _CHECKED_ROWS)
    try:
        result = check(op, each.call, case._replace(rows=rows))
    except Exception as problem:
        return _exception_outcome(problem, case.device)
    if not result.agrees:
        return {"outcome": "disagrees", "reason": f"differs from the reference by {result.error:.1e}"}
    return {"outcome": "ok", "error": result.error}


def _exception_outcome(problem: Exception, device: str) -> dict[str, Any]:
    """The outcome of an exception; raises it again if the CUDA context is unusable."""
    if context_error(device) is not None:
        raise problem
    if isinstance(problem, torch.OutOfMemoryError):
        return {"outcome": "out_of_memory", "reason": first_line(problem)}
    refused = isinstance(problem, BackendError) or any(words in str(problem) for words in _NO_KERNEL)
    return {"outcome": "unsupported" if refused else "failed", "reason": first_line(problem)}


def _timed(
    steps: Mapping[str, TimedCall], mode: str, inputs: Example, device: str, note: Callable[[str], object]
) -> dict[str, dict[str, Any]]:
    """Quantiles of every implementation in milliseconds, or the reason why there are none."""
    answers: dict[str, dict[str, Any]] = {}
    rounds: dict[str, int] = {}
    runs: dict[str, Callable[[], object]] = {}
    times: dict[str, list[float]] = {}
    for name, each in steps.items():
        note(name)
        runs[name] = functools.partial(_forward if mode == "forward" else _train, each.call, inputs)
        try:
            runs[name]()
            first = ceilings.milliseconds(runs[name], device) / 1000
        except Exception as problem:
            answers[name] = _exception_outcome(problem, device)
            continue
        wanted = int(_BUDGET_S[torch.device(device).type] / max(first, 1e-6))
        rounds[name] = 1 if first > _SLOW_S else min(max(wanted, _MIN_ROUNDS), _MAX_ROUNDS)
        times[name] = []
    while waiting := [name for name in rounds if len(times[name]) < rounds[name]]:
        for name in waiting:
            times[name].append(ceilings.milliseconds(runs[name], device))
    for name, values in times.items():
        p10, p50, p90 = (float(value) for value in np.percentile(values, (10, 50, 90)))
        answers[name] = {f"{mode}_ms": {"p10": p10, "p50": p50, "p90": p90, "rounds": len(values)}}
    return answers


@torch.no_grad()
def _forward(call: Call, inputs: Example) -> object:
    return call(*inputs.arguments, **inputs.keywords)


def _train(call: Call, inputs: Example) -> object:
    result = call(*inputs.arguments, **inputs.keywords)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    return torch.autograd.grad(outputs, inputs.leaves, [y.detach() for y in outputs])


def _floors(op: str, case: Setting, inputs: Example, limits: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:
    """The minimum milliseconds of each mode: for moving the bytes, and for computing the exponentials.

    A forward pass reads the inputs and writes the outputs.  A backward pass reads both and writes a gradient of every
    input.  It also recomputes the exponentials, because storing them takes too much memory.
    """
    read = sum(x.nbytes for x in inputs.leaves)
    written = case.rows * case.frames * case.channels * case.dtype.itemsize * (2 if op == "causal_conv" else 1)
    moved = {"forward": read + written, "train": 3 * read + 2 * written}
    exponentials = _exponentials(op, case)
    exps = {"forward": exponentials, "train": 2 * exponentials}

    def minimum_ms(amount: int, rate: float | None) -> float | None:
        return 1000 * amount / rate if rate else None

    return {
        mode: {
            "bytes": moved[mode], "bytes_ms": minimum_ms(moved[mode], limits["copy_bytes_per_s"]),
            "exps": exps[mode], "exps_ms": minimum_ms(exps[mode], limits["exps_per_s"]),
        }
        for mode in MODES
    }  # fmt: skip


def _exponentials(op: str, case: Setting) -> int:
    """How many exponentials an op needs: decays of states, weights of pairs of frames, or SiLU, in both directions."""
    entries = case.rows * case.frames * case.channels
    return {"selective_scan": 2 * entries * case.state, "attention": case.rows * 2 * case.frames**2,
            "causal_conv": 2 * entries}.get(op, 0)  # fmt: skip
