"""Results as tables for a terminal: one per metric, numbers of frames as columns, declared beside measured growth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich import box
from rich.table import Table

from temporal_zoo.registry import get
from temporal_zoo.spec import MixerSpec

from .curves import METRICS, STORED, TIME, Curve, Metric, Panel

ENDS = {"out_of_memory": "out of memory", "unsupported": "unsupported", "failed": "failed"}
_DECLARED = {TIME.name: "time", STORED.name: "memory"}


def tables(panel: Panel) -> list[Table]:
    """The tables of one panel: every metric that was measured, and the fit of the stored bytes."""
    found = [_metric_table(panel, metric) for metric in METRICS if panel.measured(metric)]
    if not found:
        found = [_metric_table(panel, TIME)]
    fitted = [curve for curve in panel.curves if curve.quadratic(STORED)]
    return [*found, _fit_table(panel, fitted)] if fitted else found


def remarks(panel: Panel) -> list[str]:
    """What the numbers of one panel say, in sentences; comparisons are made at the longest length that both have."""
    found = []
    first, *others = panel.curves
    for other in others:
        for metric, verb, than in ((TIME, "takes", "as long as"), (STORED, "stores", "the bytes of")):
            mine, theirs = first.points(metric), other.points(metric)
            if (shared := mine.keys() & theirs.keys()) and theirs[max(shared)] > 0:
                ratio = mine[max(shared)] / theirs[max(shared)]
                found.append(f"At {max(shared)} frames {first.mixer} {verb} {ratio:.2f} times {than} {other.mixer}.")
    for curve in panel.curves:
        for result in curve.results:
            outcome, who = result.outcome, f"{curve.mixer} at {result.case.frames} frames"
            if outcome.status != "ok":
                found.append(f"{who}: {ENDS[outcome.status]}: {outcome.reason}")
            elif outcome.time_ms and not outcome.time_ms.steady:
                times = outcome.time_ms
                found.append(
                    f"{who}: the clock did not settle in {times.rounds} rounds; 80 % of them took between "
                    f"{number(times.p10)} and {number(times.p90)} ms."
                )
    return found


def bodies(panel: Panel) -> list[str]:
    """Which bodies ran and how well they agree with the reference, one line per mixer."""
    lines = []
    for curve in panel.curves:
        done = [result.outcome for result in curve.results if result.outcome.status == "ok"]
        ran = sorted({f"{op}={body}" for o in done for op, names in o.bodies.items() for body in names})
        errors = [o.agreement.max_error for o in done if o.agreement and o.agreement.max_error is not None]
        checked = f"; largest difference from the reference {max(errors):.1e}" if errors else ""
        lines.append(f"{curve.mixer}: {', '.join(ran) or 'no op of ours'}{checked}")
    return lines


def number(value: float) -> str:
    """Three significant digits, without exponents for everyday sizes."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def size(value: float) -> str:
    """Bytes with the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{number(value)} {unit}"
        value /= 1024
    return f"{number(value)} GiB"


def _metric_table(panel: Panel, metric: Metric) -> Table:
    lengths = panel.lengths
    pairs = list(itertools.pairwise(lengths))
    declared = _DECLARED.get(metric.name)
    table = _table(panel.title(metric))
    table.add_column("frames")
    for frames in lengths:
        table.add_column(str(frames), justify="right")
    for a, b in pairs:
        table.add_column(f"exponent\n{a} to {b}", justify="right")
    if len(lengths) > 2:
        table.add_column("log-log\nslope", justify="right")
    if declared:
        table.add_column("declared\n(mixer)", justify="right")
    for curve in panel.curves:
        points, powers = curve.points(metric), curve.exponents(metric)
        row = [curve.mixer, *(_cell(curve, points, frames, metric) for frames in lengths)]
        row += [_power(powers.get(pair)) for pair in pairs]
        if len(lengths) > 2:
            row.append(_power(curve.slope(metric)))
        if declared:
            row.append(_declared(curve.mixer, declared))
        table.add_row(*row)
    return table


def _fit_table(panel: Panel, curves: Sequence[Curve]) -> Table:
    table = _table("stored for backward, fit a + b L + c L^2 over L frames, no term negative")
    table.add_column("mixer")
    for name, unit in (("a", ""), ("b", "per frame"), ("c", "per frame^2")):
        table.add_column(f"{name}\n{unit}".strip(), justify="right")
    for frames in panel.lengths:
        table.add_column(f"c L^2 share\nat {frames}", justify="right")
    for curve in curves:
        law = curve.quadratic(STORED)
        assert law is not None
        shares = (f"{100 * law.share(frames):.1f} %" for frames in panel.lengths)
        table.add_row(curve.mixer, size(law.constant), size(law.linear), size(law.quadratic), *shares)
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)


def _cell(curve: Curve, points: dict[int, float], frames: int, metric: Metric) -> str:
    if frames in points:
        return number(points[frames] / metric.scale)
    return ENDS.get(curve.status(frames) or "", "-")


def _power(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _declared(mixer: str, quantity: str) -> str:
    return getattr(get(MixerSpec.parse(mixer).name), quantity)
