"""Results as tables for a terminal: one per metric, numbers of frames as columns, declared beside measured growth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from bench.sweep.outcome import ENDS, WIDE, Times
from bench.sweep.repetitions import drift
from temporal_zoo._support.units import number, size

from . import crossover, fit
from .curves import METRICS, PROCESSOR, STORED, TIME, Curve, Metric, Panel, Result


@dataclass(frozen=True)
class Sheet:
    """A table before it is drawn: title, names of columns, rows of as many cells, and a caption."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def rich_table(sheet: Sheet) -> Table:
    """A sheet for the terminal: the first column to the left, numbers to the right."""
    table = Table(title=sheet.title, title_justify="left", title_style="bold", caption=sheet.caption or None,
                  caption_justify="left", box=box.SIMPLE_HEAD)  # fmt: skip
    for place, name in enumerate(sheet.columns):
        table.add_column(name, justify="right" if place else "left")
    for row in sheet.rows:
        table.add_row(*map(Text, row))  # as it stands: brackets are no markup
    return table


def tables(panel: Panel) -> list[Sheet]:
    """The tables of one panel: every metric that was measured, and the fit of the stored bytes."""
    # On an idle machine processor time tells nothing that the clock does not.
    shown = [metric for metric in METRICS if metric is not PROCESSOR or panel.waited]
    found = [_metric_table(panel, metric) for metric in shown if panel.measured(metric)]
    if not found:
        found = [_metric_table(panel, TIME)]
    fitted = [curve for curve in panel.curves if curve.quadratic(STORED)]
    return [*found, _fit_table(panel, fitted)] if fitted else found


def remarks(panel: Panel) -> list[str]:
    """What the numbers of one panel say, in sentences."""
    return [*_ratios(panel), *crossover.sentences(panel), *ends(panel)]


def _ratios(panel: Panel) -> list[str]:
    """The first mixer beside each of the others, at the longest length that both have."""
    found = []
    first, *others = panel.curves
    for other in others:
        for metric, verb, than in ((TIME, "takes", "as long as"), (STORED, "stores", "the bytes of")):
            if shared := first.points(metric).keys() & other.points(metric).keys():
                frames = max(shared)
                more, less = sorted((first, other), key=lambda curve: curve.points(metric)[frames], reverse=True)
                if least := less.points(metric)[frames]:
                    ratio = number(more.points(metric)[frames] / least)
                    found.append(f"At {frames} frames {more.mixer} {verb} {ratio} times {than} {less.mixer}.")
    return found


def ends(panel: Panel) -> list[str]:
    """Cases that ended without a number, and those whose time is not well known."""
    found = []
    for curve in panel.curves:
        for result in curve.results:
            outcome, who = result.outcome, f"{curve.mixer} at {result.case.frames} frames"
            if outcome.status != "ok":
                found.append(f"{who}: {ENDS[outcome.status]}: {outcome.reason}")
            elif (times := outcome.time_ms) and times.processes == 1 and (times.wide or not times.steady):
                found.append(f"{who}: {_unsteady(times)}")
    return found + _wide(panel)


def _unsteady(times: Times) -> str:
    """Why the time of a single process is not to be relied on."""
    if times.rounds == 1:
        return "so slow that it was timed once only."
    said = f"spread beyond {100 * WIDE:.0f} %" if times.steady else "the clock did not settle"
    low, high = map(number, times.interval)
    return f"{said} in {times.rounds} rounds; 80 % of them took between {low} and {high} ms."


def _wide(panel: Panel) -> list[str]:
    """The times of several processes that are not well known, in a sentence."""
    found = [
        f"{curve.mixer} at {result.case.frames} frames (±{100 * times.margin:.0f} %)"
        for curve in panel.curves
        for result in curve.results
        if (times := result.outcome.time_ms) and times.processes > 1 and times.wide
    ]
    return [f"Beyond ±{100 * WIDE:.0f} %, which more repetitions narrow: {', '.join(found)}."] if found else []


def drifted(results: Sequence[Result]) -> str:
    """How much faster or slower the machine itself was from repetition to repetition, in a sentence."""
    factors = drift(result.outcome for result in results)
    each = ", ".join(f"{factor:.2f}" for factor in factors)
    return f"All cases together, repetitions took {each} of their mean time." if factors else ""


def explained(panel: Panel) -> str:
    """What ± means beside the times of a panel."""
    if panel.processes == 1:
        return "±: 80 % of the rounds of one process; --repetitions tells how far processes differ"
    return f"±: Student's 95 % interval over {panel.processes} processes"


def notes(panel: Panel) -> list[str]:
    """How the numbers came about: which backends ran, and how well they agree with the reference."""
    lines = []
    if panel.waited:
        lines.append("Steps waited for processors that other programs had: read the processor time, not the clock.")
    if panel.case.level == "model":
        lines.append("Declared growth is the bare mixer's; all that is around it grows linearly with the frames.")
    if panel.case.level == "model" and panel.case.mode == "train":
        lines.append("A training step is forward pass, loss, backward pass, AdamW and the moving average.")
    for curve in panel.curves:
        done = [result.outcome for result in curve.results if result.outcome.status == "ok"]
        ran = sorted({f"{op}={backend}" for o in done for op, names in o.backends.items() for backend in names})
        errors = [o.agreement.max_error for o in done if o.agreement and o.agreement.max_error is not None]
        checked = f"; largest difference from the reference {max(errors):.1e}" if errors else ""
        lines.append(f"{curve.mixer}: {', '.join(ran) or 'no op of ours'}{checked}")
    return lines


def _metric_table(panel: Panel, metric: Metric) -> Sheet:
    lengths = panel.lengths
    pairs = list(itertools.pairwise(lengths))
    declared = any(curve.declared(metric) for curve in panel.curves)
    columns = ["frames", *map(str, lengths), *(f"exponent\n{a} to {b}" for a, b in pairs)]
    columns += ["log-log\nslope"] * (len(lengths) > 2) + ["declared\n(mixer)"] * declared
    rows = []
    for curve in panel.curves:
        points, powers = curve.points(metric), curve.exponents(metric)
        row = [curve.mixer, *(cell(curve, points, frames, metric) for frames in lengths)]
        row += [_power(powers.get(pair)) for pair in pairs]
        if len(lengths) > 2:
            row.append(slope(curve, metric))
        if declared:
            row.append(curve.declared(metric) or "-")
        rows.append(tuple(row))
    return Sheet(panel.title(metric), tuple(columns), tuple(rows), explained(panel) if metric is TIME else "")


def _fit_table(panel: Panel, curves: Sequence[Curve]) -> Sheet:
    columns = ["mixer", "a", "b\nper frame", "c\nper frame^2"]
    columns += [f"c L^2 share\nat {frames}" for frames in panel.lengths]
    rows = []
    for curve in curves:
        law = curve.quadratic(STORED)
        assert law is not None
        shares = (f"{100 * law.share(frames):.1f} %" for frames in panel.lengths)
        terms = map(size, (law.constant, law.linear, law.quadratic))
        rows.append((curve.mixer, *terms, *shares, f"{100 * law.bend:.1f} %"))
    return Sheet(
        "stored for backward, fit a + b L + c L^2 over L frames, b and c not negative",
        (*columns, "a + b L\nmisses by"),
        tuple(rows),
        f"c is left out where a + b L misses no point by more than {100 * fit.STRAIGHT:.0f} %",
    )


def cell(curve: Curve, points: dict[int, float], frames: int, metric: Metric) -> str:
    """A value, with its margin where it is a time; or how the case ended."""
    if frames not in points:
        return ENDS.get(curve.status(frames) or "", "-")
    value = number(points[frames] / metric.scale)
    times = next(r.outcome.time_ms for r in curve.results if r.case.frames == frames)
    if metric is not TIME or times is None or times.rounds == 1:
        return value
    return f"{value} ±{100 * times.margin:.0f} %"


def slope(curve: Curve, metric: Metric) -> str:
    """The slope over all lengths, with its error where it has one."""
    value, error = curve.slope(metric), curve.slope_error(metric)
    return _power(value) if value is None or not error else f"{value:.2f} ±{error:.2f}"


def _power(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
