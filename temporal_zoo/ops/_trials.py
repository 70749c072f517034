"""Small trial runs of every backend of every op on this machine: does it run, and does it agree with the reference?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from temporal_zoo.ops._dispatch import ops
from temporal_zoo.ops.agreement import TOLERANCE, Case, call_of, error, example


def trials() -> Iterator[tuple[str, str, str]]:
    """(op, backend, device) of all trials on this machine."""
    for name, op in sorted(ops().items()):
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            for backend in op.tried(device):
                yield name, backend, device


def trial(name: str, backend: str, device: str) -> dict[str, Any]:
    """One backend on the first of four small examples that it takes: float32, then bfloat16, each padded, then not.

    Returns:
        `dtype` and `padded` of the example that ran, or None; `reasons` why it took none; `error`, the largest
        difference from the float64 reference in values and gradients (see `agreement.error`);
        `agrees`, whether that is rounding; `package`, the optional one that the backend calls, or None; `confirmed`,
        what shows that the backend is right, or None.
    """
    op = ops()[name]
    needs = {
        "package": (op.package(backend) or "").partition(".")[0] or None,
        "confirmed": op.confirmed(backend, device),
    }
    refused: list[str] = []
    for dtype, padded in itertools.product(TOLERANCE, (True, False)):
        case = Case(device, dtype, padded)
        arguments, keywords, _ = example(name, case)
        if not (reasons := op.reasons(backend, *arguments, **keywords)):
            off = error(name, call_of(name, backend), case)
            told = str(dtype).removeprefix("torch.")
            return {
                "dtype": told,
                "padded": padded,
                "reasons": [],
                "error": off,
                "agrees": off < TOLERANCE[dtype],
            } | needs
        refused += [reason for reason in reasons if reason not in refused]
    return {"dtype": None, "padded": None, "reasons": refused, "error": None, "agrees": None, **needs}
