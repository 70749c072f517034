"""Results as tables, one per metric, with numbers of frames as columns and measured and declared growth; remarks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from bench.sweep.outcome import STATUS_WORDS, WIDE, Times
from bench.sweep.repetitions import drift
from bench.sweep.results import CaseResult
from temporal_zoo._support import terminal
from temporal_zoo._support.units import number, size

from . import crossover, fit
from .curves import METRICS, PROCESSOR, STORED, TIME, Curve, Metric, Panel


@dataclass(frozen=True)
class Sheet:
    """The content of a table: a title, names of columns, rows with a cell for each column, and a caption."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def rich_table(sheet: Sheet) -> Table:
    """A sheet as a table for the terminal; all columns except the first are right-aligned."""
    first, *others = sheet.columns
    table = terminal.table(first, numbers=tuple(others), title=sheet.title, caption=sheet.caption or None)
    for row in sheet.rows:
        table.add_row(*map(Text, row))  # Text, so that brackets are not markup
    return table


def tables(panel: Panel) -> list[Sheet]:
    """The tables of one panel: every metric that was measured, and the fit of the stored bytes."""
    # On an idle machine processor time adds nothing to the elapsed time.
    shown = [metric for metric in METRICS if metric is not PROCESSOR or panel.waited]
    sheets = [_metric_table(panel, metric) for metric in shown if panel.measured(metric)]
    if not sheets:
        sheets = [_metric_table(panel, TIME)]
    fitted = [curve for curve in panel.curves if curve.quadratic(STORED)]
    return [*sheets, _fit_table(panel, fitted)] if fitted else sheets


def remarks(panel: Panel) -> list[str]:
    """Sentences about the results of one panel."""
    return [*_ratios(panel), *crossover.sentences(panel), *problems(panel)]


def _ratios(panel: Panel) -> list[str]:
    """Compares the first mixer with each of the others, at the longest length that both have."""
    sentences = []
    first, *others = panel.curves
    for other in others:
        for metric, verb, than in ((TIME, "takes", "as long as"), (STORED, "stores", "the bytes of")):
            if shared := first.points(metric).keys() & other.points(metric).keys():
                frames = max(shared)
                more, less = sorted((first, other), key=lambda curve: curve.points(metric)[frames], reverse=True)
                if least := less.points(metric)[frames]:
                    ratio = number(more.points(metric)[frames] / least)
                    sentences.append(f"At {frames} frames {more.mixer} {verb} {ratio} times {than} {less.mixer}.")
    return sentences


def problems(panel: Panel) -> list[str]:
    """Sentences about cases without a value and about uncertain times."""
    sentences = []
    for curve in panel.curves:
        for result in curve.results:
            outcome, subject = result.outcome, f"{curve.mixer} at {result.case.frames} frames"
            if outcome.status != "ok":
                sentences.append(f"{subject}: {STATUS_WORDS[outcome.status]}: {outcome.reason}")
            elif (times := outcome.time_ms) and times.processes == 1 and (times.wide or not times.steady):
                sentences.append(f"{subject}: {_unsteady(times)}")
    return sentences + _wide(panel)


def _unsteady(times: Times) -> str:
    """Why the time of a single process is uncertain."""
    if times.rounds == 1:
        return "so slow that it was timed only once."
    reason = f"the spread is above {100 * WIDE:.0f} %" if times.steady else "the median did not settle"
    low, high = number(times.p10), number(times.p90)
    return f"{reason} in {times.rounds} rounds; 80 % of them took between {low} and {high} ms."


def _wide(panel: Panel) -> list[str]:
    """A sentence about uncertain times of several processes."""
    uncertain = [
        f"{curve.mixer} at {result.case.frames} frames (±{100 * times.margin:.0f} %)"
        for curve in panel.curves
        for result in curve.results
        if (times := result.outcome.time_ms) and times.processes > 1 and times.wide
    ]
    if not uncertain:
        return []
    return [f"Uncertain by more than ±{100 * WIDE:.0f} % (more repetitions help): {', '.join(uncertain)}."]


def drift_sentence(results: Sequence[CaseResult]) -> str:
    """A sentence about changes of the machine's speed between repetitions."""
    factors = drift(result.outcome for result in results)
    each = ", ".join(f"{factor:.2f}" for factor in factors)
    return f"Repetitions took {each} of their mean time, over all cases." if factors else ""


def margin_note(panel: Panel) -> str:
    """The meaning of ± beside the times of a panel."""
    if panel.processes == 1:
        return "±: 80 % of the rounds of one process; use --repetitions to see how much processes differ"
    return f"±: Student's 95 % interval over {panel.processes} processes"


def notes(panel: Panel) -> list[str]:
    """Remarks on the method: backends, their largest difference from the reference, and conditions."""
    lines = []
    if panel.waited:
        lines.append("Steps waited for processors that other programs used; read the processor time instead.")
    if panel.case.level == "model":
        lines.append("Declared growth is that of the bare mixer; the rest of the network grows linearly.")
    if panel.case.level == "model" and panel.case.mode == "train":
        lines.append("A training step is forward pass, loss, backward pass, AdamW and the average of the weights.")
    for curve in panel.curves:
        outcomes = [result.outcome for result in curve.results if result.outcome.status == "ok"]
        ran = sorted({f"{op}={backend}" for o in outcomes for op, names in o.backends.items() for backend in names})
        errors = [o.agreement.max_error for o in outcomes if o.agreement and o.agreement.max_error is not None]
        checked = f"; largest difference from the reference {max(errors):.1e}" if errors else ""
        lines.append(f"{curve.mixer}: {', '.join(ran) or 'no op of this library'}{checked}")
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
    return Sheet(panel.title(metric), tuple(columns), tuple(rows), margin_note(panel) if metric is TIME else "")


def _fit_table(panel: Panel, curves: Sequence[Curve]) -> Sheet:
    columns = ["mixer", "a", "b\nper frame", "c\nper frame^2"]
    columns += [f"c L^2 fraction\nat {frames}" for frames in panel.lengths]
    rows = []
    for curve in curves:
        law = curve.quadratic(STORED)
        assert law is not None
        fractions = (f"{100 * law.quadratic_fraction(frames):.1f} %" for frames in panel.lengths)
        terms = map(size, (law.constant, law.linear, law.quadratic))
        rows.append((curve.mixer, *terms, *fractions, f"{100 * law.bend:.1f} %"))
    return Sheet(
        "stored for backward, fit a + b L + c L^2 over L frames, b and c not negative",
        (*columns, "a + b L\nmisses by"),
        tuple(rows),
        f"c is 0 if a + b L misses no point by more than {100 * fit.STRAIGHT:.0f} %",
    )


def cell(curve: Curve, points: dict[int, float], frames: int, metric: Metric) -> str:
    """A value, with a margin if it is a time; or the status of the case."""
    if frames not in points:
        return STATUS_WORDS.get(curve.status(frames) or "", "-")
    value = number(points[frames] / metric.scale)
    times = next(r.outcome.time_ms for r in curve.results if r.case.frames == frames)
    if metric is not TIME or times is None or times.rounds == 1:
        return value
    return f"{value} ±{100 * times.margin:.0f} %"


def slope(curve: Curve, metric: Metric) -> str:
    """The slope over all lengths, with its uncertainty."""
    value, error = curve.slope(metric), curve.slope_error(metric)
    return _power(value) if value is None or not error else f"{value:.2f} ±{error:.2f}"


def _power(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
