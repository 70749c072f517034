"""Compares plans with measurements on the GPU of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from temporal_zoo._support import terminal
from temporal_zoo._support.arithmetic import set_arithmetic
from temporal_zoo._support.environment import environment
from temporal_zoo._support.record import Session
from temporal_zoo._support.stored_bytes import stored_bytes
from temporal_zoo._support.units import number
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import use_backend

from .devices import GIB
from .plan import Plan

_TOLERANCE = 0.10


class VerifyError(InvalidInput):
    """Plans cannot be verified; the message says why."""


@dataclass(frozen=True)
class Measured:
    """Bytes of a real step; all None if it ran out of memory."""

    stored: int | None = None
    peak: int | None = None
    reserved: int | None = None


@dataclass(frozen=True)
class VerifiedPlan:
    """A plan and its measurement."""

    plan: Plan
    measured: Measured

    @property
    def error(self) -> float | None:
        """The error of the planned peak, relative to the measured peak."""
        return None if self.measured.peak is None else self.plan.bytes.peak / self.measured.peak - 1

    @property
    def wrong(self) -> bool:
        """Whether the error is above 10 %, or the step ran out of memory although the plan says that it fits."""
        return self.plan.fit == "yes" if self.error is None else abs(self.error) > _TOLERANCE


def run(
    plans: Sequence[Plan],
    record: Path,
    report: Callable[[str], object],
    measure: Callable[[Plan], Measured] | None = None,
) -> list[VerifiedPlan]:
    """Measures every plan and appends it to `record`.

    Raises:
        VerifyError: torch finds no GPU.
    """
    if measure is None and not torch.cuda.is_available():
        raise VerifyError("--verify needs a CUDA device, and torch finds none; run the command without --verify")
    set_arithmetic()
    session, checks = Session(record, environment()), []
    for plan in plans:
        check = VerifiedPlan(plan, (measure or on_cuda)(plan))
        checks.append(check)
        session.write("plan", {**plan.to_dict(), "measured": vars(check.measured), "error": check.error})
        setup = plan.setup
        report(f"{setup.mixer}, {setup.frames} frames, checkpointing {setup.checkpointing}: {_summary(check)}")
    return checks


def on_cuda(plan: Plan) -> Measured:
    """Runs the step on the GPU with the backends of the plan: stored bytes, and the peak of the second run."""
    try:
        with use_backend(**pins(plan)):
            step = plan.setup.step(torch.device("cuda"))
            stored = stored_bytes(step.forward, step.network)
            step()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            step()
            torch.cuda.synchronize()
            return Measured(stored, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
    except torch.OutOfMemoryError:
        return Measured()
    finally:
        torch.cuda.empty_cache()


def pins(plan: Plan) -> dict[str, str]:
    """The backend of each op.  If there are two, the mixer always calls the reference, which needs no pin."""
    return {
        op: next((backend for backend in backends if backend != "reference"), backends[0])
        for op, backends in plan.backends.items()
    }


def table(checks: Sequence[VerifiedPlan]) -> Table:
    """Planned and measured peaks side by side."""
    stored, reserved = ("stored\nplanned", "\nmeasured"), ("reserved\nplanned", "\nmeasured")
    numbers = (*stored, "peak\nplanned", "\nmeasured", "\nerror", *reserved)
    shown = terminal.table("mixer", "recomputed", "frames", numbers=numbers, title="planned and measured, GiB")
    for check in checks:
        planned, measured, setup = check.plan.bytes, check.measured, check.plan.setup
        sizes = [planned.stored, measured.stored, planned.peak, measured.peak, planned.reserved, measured.reserved]
        cells = ["out of memory" if size is None else number(size / GIB) for size in sizes]
        cells.insert(4, "-" if check.error is None else f"{100 * check.error:+.1f} %")
        style = "red" if check.wrong else None
        shown.add_row(setup.mixer, setup.checkpointing, f"{setup.frames:,}", *cells, style=style)
    return shown


def _summary(check: VerifiedPlan) -> str:
    planned = number(check.plan.bytes.peak / GIB)
    if check.measured.peak is None or check.error is None:
        return f"{planned} GiB planned, out of memory"
    return f"{planned} GiB planned, {number(check.measured.peak / GIB)} measured ({100 * check.error:+.1f} %)"
