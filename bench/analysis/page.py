"""One self-contained HTML page of a run: what it found, its pictures and tables, and how every number came about."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from bench.sweep.load import BUSY_PERCENT
from bench.sweep.outcome import ENDS, WIDE
from bench.sweep.results import Run
from temporal_zoo._support.units import number, size

from . import crossover, plot
from . import tables as report
from .curves import PEAK, STORED, Panel, Result, panels

_TITLE = "What temporal mixers cost"

# What a reader must know to read the numbers, in the order in which they meet them.
_TERMS = {
    "time": "Median over rounds of one step, after warm-up, with caches emptied before every round; geometric mean "
    "over processes. ± is Student's 95 % interval over processes, or where there was one only, 80 % of its rounds; "
    "in the pictures it is a bar. On a CPU a process keeps the memory that it frees.",
    "stored for backward": "Bytes that the autograd graph holds between forward and backward pass: the storage of "
    "every saved tensor once, without parameters. Counted, not sampled.",
    "peak": "The most memory in use during one step, above what was in use before it: allocated bytes on CUDA, "
    "resident set of the case's own process on a CPU.",
    "exponent": "log(ratio of values) / log(ratio of frames): 1 is linear, 2 quadratic. The slope is over all lengths; "
    "its ± follows from the intervals of the times.",
    "declared": "How the mixer itself says that it grows with the number of frames T.",
    "×": "In a picture, a length that ended without a number, such as out of memory.",
}


def page(run: Run) -> str:
    """The page of a run; it loads nothing from anywhere."""
    found, identity = panels(run.results), run.environment["id"]
    backend = [
        f"<header><h1>{_TITLE}</h1>{_paragraph(run.machine)}{_paragraph(f'{run.code}. {_counts(run)}')}</header>",
        _findings(found),
        *(_section(setting, here) for setting, here in plot.settings(found).items()),
        _terms(),
        _cases(run.results),
        f"<footer>{_paragraph(f'Drawn by zoo report from {run.path.name}, environment {identity}.')}</footer>",
    ]
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_TITLE}</title>'
    opening = f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head>\n<body>'
    return f"{opening}{''.join(backend)}</body></html>\n"


def _counts(run: Run) -> str:
    ends = [result.outcome.status for result in run.results]
    said = [f"{len(ends)} cases, {ends.count('ok')} measured"]
    said += [f"{ends.count(status)} {words}" for status, words in ENDS.items() if status in ends]
    wide = sum(bool(result.outcome.time_ms and result.outcome.time_ms.wide) for result in run.results)
    told = f"{', '.join(said)}."
    if wide:
        told += f" In {wide} of them the time may be off by more than {100 * WIDE:.0f} %."
    if run.left_out:
        told += (
            f" {len(run.left_out)} lines or groups of lines of the record were left out, the first: {run.left_out[0]}."
        )
    if run.busy:
        told += f" Before {run.busy} of {len(run.lines)} processes other programs had over {BUSY_PERCENT:.0f} % of all."
    return f"{told} {report.drifted(run.results)}"


def _findings(found: Sequence[Panel]) -> str:
    """The sentences about crossing curves, for every panel that has any."""
    parts = []
    for panel in found:
        if said := crossover.sentences(panel):
            where = f"<h3>{escape(panel.case.setting)}: {escape(panel.step)}</h3>"
            parts.append(where + _list(said))
    if not parts:
        return ""
    return f"<section><h2>Against fused attention</h2>{''.join(parts)}</section>"


def _section(setting: str, here: Sequence[Panel]) -> str:
    picture = base64.b64encode(plot.svg(here).encode()).decode()
    parts = [
        f"<section><h2>{escape(setting)}</h2>",
        f'<img alt="time and memory against frames" src="data:image/svg+xml;base64,{picture}">',
    ]
    for panel in here:
        parts.append(f"<h3>{escape(panel.step)}</h3>")
        parts += [_table(sheet) for sheet in report.tables(panel)]
        parts.append(_list(report.ends(panel)))
        parts.append(f"<details><summary>how these came about</summary>{_list(report.notes(panel))}</details>")
    return "".join(parts) + "</section>"


def _terms() -> str:
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _TERMS.items())
    return f"<section><h2>What the numbers are</h2><dl>{terms}</dl></section>"


def _cases(results: Iterable[Result]) -> str:
    """Every case as it was recorded."""
    columns = ("case", "setting", "end", "p10 / p50 / p90 (ms)", "rounds", "processes", "±", STORED.name,
               PEAK.name, "backends", "off the reference")  # fmt: skip
    rows = tuple(_row(result) for result in results)
    table = _table(report.Sheet("", columns, rows))
    return f"<section><h2>Every case</h2><details><summary>{len(rows)} rows</summary>{table}</details></section>"


def _row(result: Result) -> tuple[str, ...]:
    outcome, case = result.outcome, result.case
    times, memory = outcome.time_ms, outcome.memory
    error = outcome.agreement.max_error if outcome.agreement else None
    return (
        str(case),
        case.setting,
        outcome.status if outcome.status == "ok" else f"{ENDS[outcome.status]}: {outcome.reason}",
        " / ".join(map(number, (times.p10, times.p50, times.p90))) if times else "-",
        str(times.rounds) if times else "-",
        str(times.processes) if times else "-",
        f"{100 * times.margin:.0f} %" if times else "-",
        "-" if outcome.stored_bytes is None else size(outcome.stored_bytes),
        size(memory.above) if memory else "-",
        " ".join(f"{op}={'+'.join(backends)}" for op, backends in outcome.backends.items()) or "-",
        "-" if error is None else f"{error:.0e}",
    )


def _table(sheet: report.Sheet) -> str:
    head = "".join(f"<th>{escape(name).replace(chr(10), '<br>')}</th>" for name in sheet.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in sheet.rows)
    title = f"<caption>{escape(sheet.title)}</caption>" if sheet.title else ""
    below = _paragraph(sheet.caption) if sheet.caption else ""
    return f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{below}'


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"
