"""One op at one size: its backends and what torch offers, taking turns, beside what the GPU allows at best.

Nothing is timed that differs from the float64 reference.  Before every round a buffer larger than the L2 cache is
written, which is not timed and during which Python launches the next kernels: the times are the device's.
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

from temporal_zoo.ops import BackendError, ops
from temporal_zoo.ops.agreement import Call, Case, Example, call_of, check, example

from . import ceilings
from .trouble import context_error, first_line

MODES = ("forward", "train")
# Seconds of one contender's rounds in one mode (on a CPU only rehearsed), the number of rounds, and the seconds of a
# first run from which one round is enough.
_BUDGET_S = {"cuda": 0.3, "cpu": 0.01}
_LEAST, _MOST, _SLOW_S = 5, 40, 1.0
_CHECKED_ROWS = 3
_SDPA = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION,
         "efficient": SDPBackend.EFFICIENT_ATTENTION}  # fmt: skip
# What a RuntimeError says when the kernel that was asked for does not take the inputs.
_NO_KERNEL = ("No available kernel", "No viable backend")
# References that loop over the frames: they are the definition, and no contender.
_LOOPS = ("selective_scan", "diagonal_ssm")


@dataclass(frozen=True)
class Contender:
    """One way to compute an op: `role` is "ours", "torch", or "compiled" by `torch.compile`."""

    name: str
    role: str
    call: Call


def kernels(
    what: Mapping[str, Any], device: str, note: Callable[[str], object], without: Sequence[str]
) -> dict[str, Any]:
    """Times of all that compute an op at one size, and its floors.

    Args:
        what: `op`, `rows`, `frames`, `channels`, `dtype`; with `compiled` only what `torch.compile` makes.
        note: hears who is next.
        without: contenders that ended the process before.
    """
    op, dtype = what["op"], getattr(torch, what["dtype"])
    case = Case(device, dtype, False, what["rows"], what["frames"], what["channels"])
    made = example(op, case)
    found: dict[str, dict[str, Any]] = {}
    steps: dict[str, Contender] = {}
    for each in contenders(op, compiled=what.get("compiled", False)):
        note(each.name)
        found[each.name] = {"role": each.role, **_checked(each, op, case, made, each.name in without)}
        if found[each.name]["outcome"] == "ok":
            steps[each.name] = each
    for mode in MODES:
        for name, answer in _timed(steps, mode, made, device, note).items():
            found[name] |= answer
    limits = ceilings.measured(device)
    return {"outcome": "ok", "contenders": found, "ceilings": limits, "floors_ms": _floors(op, case, made, limits)}


def contenders(op: str, *, compiled: bool) -> Iterator[Contender]:
    """All that compute an op: our backends in the order that the library tries, then what torch offers."""
    if compiled:
        reference = import_module(f"temporal_zoo.ops.{op}.reference").run
        yield Contender("reference, compiled", "compiled", torch.compile(reference, dynamic=False))
        return
    for name in ops()[op].backends:
        if not (name == "reference" and op in _LOOPS):
            yield Contender(name, "ours", call_of(op, name))
    if op == "attention":
        for name, kernel in _SDPA.items():
            yield Contender(f"SDPA, {name}", "torch", functools.partial(_attention, kernel))


def _attention(kernel: SDPBackend, q: Tensor, k: Tensor, v: Tensor, *, lengths: None = None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with sdpa_kernel(kernel):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _checked(each: Contender, op: str, case: Case, made: Example, crashed: bool) -> dict[str, Any]:
    """Whether a contender may be timed: it agrees with the reference on a few rows."""
    if crashed:
        return {"outcome": "crashed", "reason": "it ended the process of the attempt before"}
    if each.role == "ours" and (reasons := ops()[op].reasons(each.name, *made.arguments, **made.keywords)):
        return {"outcome": "unsupported", "reason": "; ".join(reasons)}
    # Another number of rows would be compiled anew.
    rows = case.rows if each.role == "compiled" else min(case.rows, _CHECKED_ROWS)
    try:
        result = check(op, each.call, case._replace(rows=rows))
    except Exception as problem:
        return _trouble(problem, case.device)
    if not result.agrees:
        return {"outcome": "disagrees", "reason": f"differs from the reference by {result.error:.1e}"}
    return {"outcome": "ok", "error": result.error}


def _trouble(problem: Exception, device: str) -> dict[str, Any]:
    """What an exception means; raised again where it left nothing to go on with."""
    if context_error(device) is not None:
        raise problem
    if isinstance(problem, torch.OutOfMemoryError):
        return {"outcome": "out_of_memory", "reason": first_line(problem)}
    refused = isinstance(problem, BackendError) or any(words in str(problem) for words in _NO_KERNEL)
    return {"outcome": "unsupported" if refused else "failed", "reason": first_line(problem)}


def _timed(
    steps: Mapping[str, Contender], mode: str, made: Example, device: str, note: Callable[[str], object]
) -> dict[str, dict[str, Any]]:
    """Quantiles of every contender in milliseconds, or why there are none."""
    answers: dict[str, dict[str, Any]] = {}
    rounds: dict[str, int] = {}
    runs: dict[str, Callable[[], object]] = {}
    times: dict[str, list[float]] = {}
    for name, each in steps.items():
        note(name)
        runs[name] = functools.partial(_forward if mode == "forward" else _train, each.call, made)
        try:
            runs[name]()
            first = ceilings.milliseconds(runs[name], device) / 1000
        except Exception as problem:
            answers[name] = _trouble(problem, device)
            continue
        wanted = int(_BUDGET_S[torch.device(device).type] / max(first, 1e-6))
        rounds[name] = 1 if first > _SLOW_S else min(max(wanted, _LEAST), _MOST)
        times[name] = []
    while waiting := [name for name in rounds if len(times[name]) < rounds[name]]:
        for name in waiting:
            times[name].append(ceilings.milliseconds(runs[name], device))
    for name, values in times.items():
        p10, p50, p90 = (float(value) for value in np.percentile(values, (10, 50, 90)))
        answers[name] = {f"{mode}_ms": {"p10": p10, "p50": p50, "p90": p90, "rounds": len(values)}}
    return answers


@torch.no_grad()
def _forward(call: Call, made: Example) -> object:
    return call(*made.arguments, **made.keywords)


def _train(call: Call, made: Example) -> object:
    result = call(*made.arguments, **made.keywords)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    return torch.autograd.grad(outputs, made.leaves, [y.detach() for y in outputs])


def _floors(op: str, case: Case, made: Example, limits: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:
    """The least milliseconds of each mode: for the bytes that must move, and for the exponentials.

    A forward pass reads the inputs and writes the outputs.  A backward pass reads both and writes a gradient of every
    input; it computes the exponentials again, as they are too many to keep.
    """
    inputs = sum(x.nbytes for x in made.leaves)
    outputs = case.rows * case.frames * case.channels * case.dtype.itemsize * (2 if op == "causal_conv" else 1)
    moved = {"forward": inputs + outputs, "train": 3 * inputs + 2 * outputs}
    exponentials = _exponentials(op, case)
    exps = {"forward": exponentials, "train": 2 * exponentials}

    def least(amount: int, rate: float | None) -> float | None:
        return 1000 * amount / rate if rate else None

    return {
        mode: {
            "bytes": moved[mode], "bytes_ms": least(moved[mode], limits["copy_bytes_per_s"]),
            "exps": exps[mode], "exps_ms": least(exps[mode], limits["exps_per_s"]),
        }
        for mode in MODES
    }  # fmt: skip


def _exponentials(op: str, case: Case) -> int:
    """Of the decays of every state, of the weights of every pair of frames, or of SiLU; in both directions."""
    entries = case.rows * case.frames * case.channels
    return {"selective_scan": 2 * entries * case.state, "attention": case.rows * 2 * case.frames**2,
            "causal_conv": 2 * entries}.get(op, 0)  # fmt: skip
