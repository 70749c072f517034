"""Plans against measurements on the GPU that is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from bench.analysis.tables import number
from temporal_zoo._support.arithmetic import set_arithmetic
from temporal_zoo._support.environment import environment
from temporal_zoo._support.record import Session
from temporal_zoo._support.stored_bytes import stored_bytes
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import use_backend

from .devices import GIB
from .plan import Plan

_TOLERANCE = 0.10


class VerifyError(InvalidInput):
    """Nothing can be measured; the message says why."""


@dataclass(frozen=True)
class Measured:
    """Bytes of a real step; all None where it ran out of memory."""

    stored: int | None = None
    peak: int | None = None
    reserved: int | None = None


@dataclass(frozen=True)
class Check:
    """A plan and what was measured."""

    plan: Plan
    measured: Measured

    @property
    def error(self) -> float | None:
        """Of the planned peak, relative to the measured one."""
        return None if self.measured.peak is None else self.plan.bytes.peak / self.measured.peak - 1

    @property
    def wrong(self) -> bool:
        """More than 10 % off, or out of memory where the plan says that there is room."""
        return self.plan.fit == "yes" if self.error is None else abs(self.error) > _TOLERANCE


def run(
    plans: Sequence[Plan],
    record: Path,
    talk: Callable[[str], object],
    measure: Callable[[Plan], Measured] | None = None,
) -> list[Check]:
    """Measures every plan and appends it to `record`.

    Raises:
        VerifyError: there is no GPU here.
    """
    if measure is None and not torch.cuda.is_available():
        raise VerifyError(
            "--verify measures on a CUDA device, and torch sees none here; without it the plan stands alone"
        )
    set_arithmetic()
    session, checks = Session(record, environment()), []
    for plan in plans:
        check = Check(plan, (measure or on_cuda)(plan))
        checks.append(check)
        session.write("plan", {**plan.to_dict(), "measured": vars(check.measured), "error": check.error})
        talk(
            f"{plan.setup.mixer}, {plan.setup.frames} frames, checkpointing {plan.setup.checkpointing}: {_told(check)}"
        )
    return checks


def on_cuda(plan: Plan) -> Measured:
    """The same step on the GPU, with the backends of the plan: stored bytes, and peaks of its second time."""
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
    """The backends of a plan; of two for one op the reference is one that a mixer insists on, and needs no pin."""
    return {
        op: next((backend for backend in backends if backend != "reference"), backends[0])
        for op, backends in plan.backends.items()
    }


def table(checks: Sequence[Check]) -> Table:
    """Planned and measured peaks side by side."""
    shown = Table(title="planned and measured, GiB", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in ("mixer", "computed again", "frames"):
        shown.add_column(name)
    for name in (
        "stored\nplanned",
        "\nmeasured",
        "peak\nplanned",
        "\nmeasured",
        "\nerror",
        "reserved\nplanned",
        "\nmeasured",
    ):
        shown.add_column(name, justify="right")
    for check in checks:
        planned, measured, setup = check.plan.bytes, check.measured, check.plan.setup
        sizes = [planned.stored, measured.stored, planned.peak, measured.peak, planned.reserved, measured.reserved]
        cells = ["out of memory" if size is None else number(size / GIB) for size in sizes]
        cells.insert(4, "-" if check.error is None else f"{100 * check.error:+.1f} %")
        style = "red" if check.wrong else None
        shown.add_row(setup.mixer, setup.checkpointing, f"{setup.frames:,}", *cells, style=style)
    return shown


def _told(check: Check) -> str:
    planned = number(check.plan.bytes.peak / GIB)
    if check.measured.peak is None or check.error is None:
        return f"{planned} GiB planned, out of memory"
    return f"{planned} GiB planned, {number(check.measured.peak / GIB)} measured ({100 * check.error:+.1f} %)"
