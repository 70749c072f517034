"""Runs cases one after another and records each as soon as it is measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from temporal_zoo.config import nearest
from temporal_zoo.environment import environment
from temporal_zoo.ops import ops, use_backend
from temporal_zoo.record import Session

from .case import Case
from .curves import Result
from .outcome import Outcome, run
from .report import ENDS, number, size


class BenchError(ValueError):
    """A sweep that cannot start; the message says what would be accepted."""


def sweep(cases: Sequence[Case], record: Path, *, budget_s: float, talk: Callable[[str], object]) -> list[Result]:
    """Measures `cases` in order; appends one line per case to `record` and says each to `talk`.

    Raises:
        BenchError: no such device, op or body; before anything is measured.
        OSError: the record cannot be written; likewise.
    """
    for case in cases:
        _check_device(case.device)
        _check_pins(case.pins)
    session = Session(record, environment())
    talk(f"{len(cases)} cases on {_place(cases)}")
    results = []
    for number_, case in enumerate(cases, start=1):
        load = _load()
        outcome = run(case, budget_s=budget_s)
        about = {"case": case.to_dict(), "threads": torch.get_num_threads(), "load_before": load}
        session.write("measurement", about | outcome.to_dict())
        talk(f"[{number_}/{len(cases)}] {case}: {_summary(outcome)}")
        results.append(Result(case, outcome))
    return results


def _check_device(text: str) -> None:
    here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    try:
        device = torch.device(text)
    except RuntimeError:
        raise BenchError(f"{text!r} is no device; here are {', '.join(here)}") from None
    if str(device) not in here and not (text == "cuda" and len(here) > 1):
        raise BenchError(f"there is no device {text!r} here; torch {torch.__version__} sees {', '.join(here)}")


def _check_pins(pins: dict[str, str]) -> None:
    with use_backend(**pins):
        for op, body in pins.items():
            if body not in (bodies := ops()[op].bodies):
                raise BenchError(f"{op} has no body {body!r}{nearest(body, bodies)}; it has {', '.join(bodies)}")


def _place(cases: Sequence[Case]) -> str:
    device = torch.device(cases[0].device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device} ({threads} thread{'s' if threads > 1 else ''})"


def _summary(outcome: Outcome) -> str:
    if outcome.status != "ok":
        return f"{ENDS[outcome.status]}: {outcome.reason}"
    assert outcome.time_ms is not None
    stored = "" if outcome.stored_bytes is None else f", stores {size(outcome.stored_bytes)}"
    return f"{number(outcome.time_ms.p50)} ms{stored}"


def _load() -> float | None:
    """Processes that wanted to run in the last minute: other work on the machine that may have slowed a case down."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
