"""Plans as tables for the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from temporal_zoo._support import terminal
from temporal_zoo._support.units import number
from temporal_zoo.ops import ops

from .devices import GIB, Device
from .plan import MOST_FRAMES, Plan, Setup

_MARKS = {"yes": "", "tight": " ~", "no": " x"}
_STYLES = {"yes": "green", "tight": "yellow", "no": "red"}


@dataclass(frozen=True)
class PlanCurve:
    """One mixer with one kind of checkpointing: a plan for each number of frames, and the longest clip that fits."""

    setup: Setup
    plans: Sequence[Plan]
    longest: int

    @property
    def name(self) -> str:
        """The mixer and its recomputed parts."""
        parts = self.setup.checkpointing
        return self.setup.mixer if parts == "none" else f"{self.setup.mixer}, {parts} recomputed"


def as_json(curves: Sequence[PlanCurve]) -> str:
    """All numbers as JSON."""
    plans = [plan.to_dict() for curve in curves for plan in curve.plans]
    longest = [{"setup": curve.setup.to_dict(), "frames": curve.longest} for curve in curves]
    return json.dumps({"plans": plans, "longest": longest}, indent=1) + "\n"


def sections(curves: Sequence[PlanCurve], device: Device) -> Iterator[Table | str]:
    """The parts of the printed report."""
    setup = curves[0].setup
    yield (
        f"[bold]Planned for {device.name}[/bold], {number(device.usable_bytes / GIB)} GiB for tensors: a training step "
        f"of {setup.preset} in {setup.dtype}, {setup.clips} x {setup.size}x{setup.size}"
    )
    yield _peaks(curves)
    yield _parts(curves)
    for curve in curves:
        yield from _refusals(curve, device)
    for line in sorted({_backends(curve) for curve in curves}):
        yield f"[dim]{line}[/dim]"
    if unconfirmed := _unconfirmed(curves, device.type):
        yield f"[dim]no GPU has confirmed {', '.join(unconfirmed)}; `auto` prefers confirmed backends[/dim]"


def _peaks(curves: Sequence[PlanCurve]) -> Table:
    frames = [f"{plan.setup.frames:,}\nframes" for plan in curves[0].plans]
    table = terminal.table(
        "mixer",
        "recomputed",
        numbers=(*frames, "fits up to\nframes"),
        title="peak of a step, GiB",
        caption="x: does not fit; ~: fits only if torch's allocator reserves no unused memory",
    )
    for curve in curves:
        cells = [f"[{_STYLES[plan.fit]}]{number(plan.bytes.peak / GIB)}{_MARKS[plan.fit]}[/]" for plan in curve.plans]
        most = f"{MOST_FRAMES:,} or more" if curve.longest >= MOST_FRAMES else f"{curve.longest:,}"
        table.add_row(curve.setup.mixer, curve.setup.checkpointing, *cells, most)
    return table


def _parts(curves: Sequence[PlanCurve]) -> Table:
    frames = curves[0].plans[-1].setup.frames
    names = ("parameters", "gradients", "optimizer", "average", "stored", "transient", "peak", "reserved")
    title = f"parts of a step at {frames:,} frames, GiB"
    table = terminal.table("mixer", "recomputed", numbers=names, title=title)
    for curve in curves:
        sizes = [getattr(curve.plans[-1].bytes, name) for name in names]
        cells = ("-" if size is None else number(size / GIB) for size in sizes)
        table.add_row(curve.setup.mixer, curve.setup.checkpointing, *cells)
    return table


def _refusals(curve: PlanCurve, device: Device) -> Iterator[str]:
    for plan in curve.plans:
        if plan.fit == "no":
            yield (
                f"[red]{curve.name}: {plan.setup.frames:,} frames need {number(plan.bytes.peak / GIB)} GiB, "
                f"{number(plan.bytes.peak / device.usable_bytes)} times the memory of {device.name}; "
                f"{f'up to {curve.longest:,} frames fit' if curve.longest else 'one frame does not fit'}[/red]"
            )


def _backends(curve: PlanCurve) -> str:
    ran = ", ".join(f"{op}={backend}" for op, backends in curve.plans[0].backends.items() for backend in backends)
    return f"{curve.setup.mixer}: {ran or 'calls no op of temporal_zoo'}"


def _unconfirmed(curves: Sequence[PlanCurve], device: str) -> list[str]:
    """The backends of the plans that no GPU has confirmed."""
    used = {
        (op, backend) for curve in curves for op, backends in curve.plans[0].backends.items() for backend in backends
    }
    return [f"{op}={backend}" for op, backend in sorted(used) if ops()[op].confirmed(backend, device) is None]
