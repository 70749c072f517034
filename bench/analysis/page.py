"""The HTML page of `zoo report`: a map of the results, then findings, pictures, tables, and every case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.sweep.machine_load import BUSY_PERCENT
from bench.sweep.outcome import STATUS_WORDS, WIDE
from bench.sweep.results import BenchRecord, CaseResult
from temporal_zoo._support import html
from temporal_zoo._support.html import Html, element
from temporal_zoo._support.units import number, size

from . import crossover, curves, plot, tables
from .curves import PEAK, STORED, Panel
from .reference_map import MapCell, ReferenceMap, reference_maps
from .tables import Sheet

_TITLE = "What temporal mixers cost"
_LEGEND = (
    ("less2", "▼ faster or smaller than the reference"),
    ("same", "≈ no difference within the intervals"),
    ("more2", "▲ slower or larger than the reference"),
)

# Definitions of the numbers, in the order of the page.
_TERMS = {
    "time": "Median over rounds of one step, after warm-up, with caches emptied before every round; geometric mean "
    "over processes. ± is Student's 95 % interval over processes; for a single process it holds 80 % of the rounds. "
    "Pictures show it as a bar. On a CPU a process keeps the memory that it frees.",
    "stored for backward": "Bytes that the autograd graph holds between forward and backward pass: the storage of "
    "every saved tensor once, without parameters. Counted, not sampled.",
    "peak": "The maximum memory in use during one step, minus the memory in use before it: allocated bytes on CUDA, "
    "resident set of the case's own process on a CPU.",
    "exponent": "log(ratio of values) / log(ratio of frames): 1 is linear, 2 quadratic. The slope is over all lengths; "
    "its ± follows from the intervals of the times.",
    "declared": "The growth with the number of frames T that the mixer declares.",
    "×": "In a picture, a length without a value, for example because memory ran out.",
}


def page(record: BenchRecord) -> str:
    """The page of a record; it loads no other file."""
    panels, identity = curves.panels(record.results), record.environment["id"]
    return html.page(
        _TITLE,
        element("header", element("h1", _TITLE)),
        _maps(panels),
        element("section", element("h2", "Machine and code"), element("p", f"{record.machine}."),
                element("p", f"{record.code}. {_counts(record)}")),
        _findings(panels),
        *(_section(setting, group) for setting, group in plot.settings(panels).items()),
        _terms(),
        _cases(record.results),
        element("footer", element("p", f"Written by zoo report from {record.path.name}, environment {identity}.")),
    )  # fmt: skip


def _maps(panels: Sequence[Panel]) -> Html:
    """The maps of all panels, a heading for each setting, and their legend."""
    parts: list[str] = []
    for setting, group in plot.settings(panels).items():
        if maps := [each for panel in group for each in reference_maps(panel)]:
            parts += [element("h2", setting), element("div", *map(_map, maps), class_="maps")]
    if not parts:
        return Html()
    legend = element("p", *(element("span", text, class_=kind) for kind, text in _LEGEND), class_="legend")
    return element("section", legend, *parts, class_="map")


def _map(each: ReferenceMap) -> Html:
    rows = [(mixer, *map(_map_cell, cells)) for mixer, cells in each.rows]
    return element("div", html.table(("frames", *map(str, each.lengths)), rows, title=each.title))


def _map_cell(cell: MapCell) -> Html:
    return element("span", cell.text, class_=cell.kind or "missing")


def _counts(record: BenchRecord) -> str:
    statuses = [result.outcome.status for result in record.results]
    counts = [f"{len(statuses)} cases, {statuses.count('ok')} measured"]
    counts += [f"{statuses.count(status)} {words}" for status, words in STATUS_WORDS.items() if status in statuses]
    sentences = [f"{', '.join(counts)}."]
    if wide := sum(bool(result.outcome.time_ms and result.outcome.time_ms.wide) for result in record.results):
        sentences.append(f"The times of {wide} cases are uncertain by more than ±{100 * WIDE:.0f} %.")
    if record.left_out:
        sentences.append(f"The report leaves out parts of the record: {'; '.join(record.left_out[:1])}")
        sentences[-1] += f", and {len(record.left_out) - 1} more." if len(record.left_out) > 1 else "."
    if record.busy:
        sentences.append(
            f"Other programs used more than {BUSY_PERCENT:.0f} % of the processors before {record.busy} of "
            f"{len(record.lines)} processes."
        )
    return " ".join([*sentences, tables.drift_sentence(record.results)])


def _findings(panels: Sequence[Panel]) -> Html:
    """The sentences about crossings of curves."""
    parts: list[str] = []
    for panel in panels:
        if sentences := crossover.sentences(panel):
            parts += [element("h3", f"{panel.case.setting}: {panel.step}"), html.bullets(sentences)]
    return element("section", element("h2", "Compared with fused attention"), *parts) if parts else Html()


def _section(setting: str, group: Sequence[Panel]) -> Html:
    picture = html.picture(plot.svg(group).encode(), "Time and memory against the number of frames", "svg+xml")
    parts = [element("h2", setting), html.figure(picture)]
    for panel in group:
        parts.append(element("h3", panel.step))
        parts += [_table(sheet) for sheet in tables.tables(panel)]
        parts.append(html.bullets(tables.problems(panel)))
        parts.append(html.details("Backends and conditions", html.bullets(tables.notes(panel))))
    return element("section", *parts)


def _terms() -> Html:
    terms = [html.joined([element("dt", name), element("dd", definition)]) for name, definition in _TERMS.items()]
    return element("section", element("h2", "Definitions"), element("dl", *terms))


def _cases(results: Iterable[CaseResult]) -> Html:
    columns = ("case", "setting", "outcome", "p10 / p50 / p90 (ms)", "rounds", "processes", "±", STORED.name,
               PEAK.name, "backends", "largest difference from the reference")  # fmt: skip
    rows = [_row(result) for result in results]
    return element("section", element("h2", "Every case"), html.details(f"{len(rows)} rows", html.table(columns, rows)))


def _row(result: CaseResult) -> tuple[str, ...]:
    outcome, case = result.outcome, result.case
    times, memory = outcome.time_ms, outcome.memory
    error = outcome.agreement.max_error if outcome.agreement else None
    return (
        str(case),
        case.setting,
        outcome.status if outcome.status == "ok" else f"{STATUS_WORDS[outcome.status]}: {outcome.reason}",
        " / ".join(map(number, (times.p10, times.p50, times.p90))) if times else "-",
        str(times.rounds) if times else "-",
        str(times.processes) if times else "-",
        f"{100 * times.margin:.0f} %" if times else "-",
        "-" if outcome.stored_bytes is None else size(outcome.stored_bytes),
        size(memory.above) if memory else "-",
        " ".join(f"{op}={'+'.join(backends)}" for op, backends in outcome.backends.items()) or "-",
        "-" if error is None else f"{error:.0e}",
    )


def _table(sheet: Sheet) -> Html:
    return html.table(sheet.columns, sheet.rows, title=sheet.title, note=sheet.caption)
