"""Compares a backend with the float64 reference: values and gradients, in several shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from temporal_zoo.ops import BackendError
from temporal_zoo.ops.agreement import LIMITS, Setting, call_of, check, refusals


def agreement(
    what: Mapping[str, Any], device: str, note: Callable[[str], object], without: Sequence[str]
) -> dict[str, Any]:
    """Finds the largest error over all shapes, with and without padded rows, and its shape.

    Args:
        what: `op`, `backend`, `dtype`, and `shapes` of rows, frames and channels.
        note: receives each shape before its comparison.
        without: shapes that ended the process in an earlier attempt; they count as disagreeing.
    """
    op, backend, dtype = what["op"], what["backend"], getattr(torch, what["dtype"])
    about = {"op": op, "backend": backend, "dtype": what["dtype"], "tolerance": LIMITS[dtype].tolerance}
    errors: dict[str, float] = {}
    refused: dict[str, str] = {}
    for rows, frames, channels in what["shapes"]:
        for padded in (False, True):
            shape = f"{rows} rows, {frames} frames, {channels} channels{', padded' * padded}"
            case = Setting(device, dtype, padded, rows, frames, channels)
            if shape in without:
                errors[shape] = math.inf
            elif reasons := refusals(op, backend, case):
                refused[shape] = "; ".join(reasons)
            else:
                note(shape)
                try:
                    errors[shape] = check(op, call_of(op, backend), case).error
                except BackendError as refusal:
                    refused[shape] = str(refusal).splitlines()[0]
    reasons = list(dict.fromkeys(refused.values()))
    if not errors:
        return about | {"outcome": "unsupported", "reason": "; ".join(reasons), "error": None, "agrees": None}
    worst = max(errors, key=lambda shape: errors[shape])
    off = errors[worst]
    return about | {
        "outcome": "ok",
        "reason": "" if math.isfinite(off) else "a value is not finite, or the process ended",
        "error": off if math.isfinite(off) else None,
        "agrees": off <= LIMITS[dtype].tolerance,
        "worst": worst,
        "compared": len(errors),
        "refused": refused,
    }
