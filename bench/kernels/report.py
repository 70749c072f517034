"""Writes records of the kernel suite as ratios: tables for a terminal, a plot, and a page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from temporal_zoo._support import markdown
from temporal_zoo._support.files import written_whole
from temporal_zoo._support.record import Reading, RecordError
from temporal_zoo._support.statistics import paired_ratio
from temporal_zoo._support.units import number, size

KernelRecord = Mapping[str, Any]

_MODES = {"forward": "forward", "train": "forward and backward"}
_OUTCOMES = {
    "missing": "missing",
    "unsupported": "unsupported",
    "disagrees": "disagrees, not timed",
    "failed": "failed",
}


@dataclass(frozen=True)
class KernelTable:
    """A title, the names of the columns, the cells of each row, and remarks."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()


def last_run(reading: Reading) -> tuple[KernelRecord, list[KernelRecord]]:
    """Finds the last run of the suite in a record; returns its head and its measurements.

    Raises:
        RecordError: the record has no run of the suite.
    """
    heads = [index for index, record in enumerate(reading.records) if record["kind"] == "suite"]
    if not heads:
        raise RecordError("the record has no run of the kernel suite; `zoo bench --suite kernels` appends one")
    rest = reading.records[heads[-1] + 1 :]
    return reading.records[heads[-1]], [record for record in rest if record["kind"] == "kernel"]


def tables(rows: Sequence[KernelRecord]) -> list[KernelTable]:
    """All tables of a run."""
    timed = [row for row in rows if row["measured"] == "time"]
    result = [_implementations(timed)]
    for subject in dict.fromkeys(row["subject"] for row in timed):
        here = [row for row in timed if row["subject"] == subject]
        for mode in _MODES:
            if own := [row for row in here if row["mode"] == mode and row["outcome"] == "ok"]:
                result.append(_times(subject, mode, own))
                result += [_ratios(subject, mode, base, own) for base in _bases(own)]
    return result + _memory([row for row in rows if row["measured"] == "memory"]) + _threads(rows)


def page(reading: Reading, record: str, picture: str) -> str:
    """The last run of a record as a page in Markdown.

    Args:
        record, picture: names of the files, relative to the page.
    """
    head, rows = last_run(reading)
    about = reading.environments[head["environment"]]
    machine, code, software = about["machine"], about["code"], about["software"]
    commit = (code["commit"] or "none")[:12] + (" with changes" if code["dirty"] else "")
    lines = [
        "# Kernels against their peers",
        "",
        "The command below writes this page from its record. Do not edit it.",
        "",
        "```text",
        head["command"],
        "```",
        "",
        f"{machine['processor'] or 'Unknown processor'}, {machine['usable_cores']} usable cores, {machine['system']}; "
        f"torch {software['torch']} ({software.get('cpu_capability', 'instructions unknown')}), "
        f"Python {software['python']}; temporal_zoo {code['version']}, commit {commit}. "
        f"Record [{record}]({record}), {head['time']}, environment `{head['environment']}`; "
        f"load of the machine at the start {number(head['load'] or 0)}.",
        "",
        _HOW,
        "",
        f"![ratios]({picture})",
    ]
    for table in tables(rows):
        lines += [
            "",
            f"## {table.title}",
            "",
            markdown.table(table.columns, table.rows),
            *(f"\n{remark}" for remark in table.remarks),
        ]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[KernelRecord], path: Path) -> None:
    """Draws the ratio of each implementation to our first backend that ran, with its spread, for every subject."""
    timed = [row for row in rows if row["measured"] == "time" and row["mode"] == "train" and "seconds" in row]
    subjects = list(dict.fromkeys(row["subject"] for row in timed))
    columns = min(3, max(1, len(subjects)))
    lines = max(1, math.ceil(len(subjects) / columns))
    figure = Figure(figsize=(5 * columns, 5.5 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for unused in panels[len(subjects) :]:
        unused.set_axis_off()
    for subject, axes in zip(subjects, panels, strict=False):
        here = [row for row in timed if row["subject"] == subject]
        if not (bases := _bases(here)):
            continue
        lengths = sorted({row["frames"] for row in here if row["role"] != "ours"})
        for name in dict.fromkeys(row["contender"] for row in here):
            pairs = {frames: pair for frames in lengths if (pair := _seconds(here, name, bases[0], frames))}
            points = {frames: paired_ratio(*pair) for frames, pair in pairs.items()}
            if name == bases[0] or not points:
                continue
            middle = [ratio.value for ratio in points.values()]
            below = [ratio.value - ratio.low for ratio in points.values()]
            above = [ratio.high - ratio.value for ratio in points.values()]
            axes.errorbar(list(points), middle, (below, above), label=name, marker="o", markersize=4, capsize=2)
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(lengths, [str(frames) for frames in lengths])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("frames")
        axes.set_ylabel(f"times the processor time of {bases[0]}")
        axes.set_title(f"{subject}, forward and backward", loc="left", fontsize=10)
        # Below the plot, because it would hide lines inside.
        axes.legend(fontsize=8, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.12), frameon=False)
    with written_whole(path) as file:
        figure.savefig(file, dpi=120, format="png")


_HOW = """\
Processor time of one thread, float32. All implementations run in one process, each with its own memory layout, and
take turns. A ratio is the median over rounds, each of two turns of one round, with the minimum and the maximum in
brackets. A turn of less than 50 ms is repeated. Implementations that take more than 2 s get three turns; those that
take more than 10 s get one turn, marked *, which is paired with every turn of the other. Implementations with an error
above 1e-4 are not timed: the error is that of any value or gradient against the reference in float64, relative to the
largest element of the tensor."""


def _implementations(rows: Sequence[KernelRecord]) -> KernelTable:
    groups: dict[tuple[str, str], list[KernelRecord]] = {}
    for row in rows:
        groups.setdefault((row["subject"], row["contender"]), []).append(row)
    cells = []
    for (subject, name), own in groups.items():
        errors = [row["error"] for row in own if row["error"] is not None]
        cells.append(
            (
                subject,
                name,
                own[0]["role"],
                _short(own[0]["origin"]),
                f"{max(errors):.0e}" if errors else "-",
                _remarks(own),
            )
        )
    columns = ("subject", "implementation", "kind", "source", "largest error", "remarks")
    return KernelTable("Implementations", columns, tuple(cells))


def _remarks(rows: Sequence[KernelRecord]) -> str:
    """Why an implementation has no time, with the lengths unless it has none at all of them."""
    reasons: dict[str, list[int]] = {}
    for row in rows:
        if row["outcome"] != "ok":
            reasons.setdefault(f"{_OUTCOMES[row['outcome']]}: {row['reason']}", []).append(row["frames"])
    lengths = {row["frames"] for row in rows}
    return "; ".join(
        reason if lengths == set(frames) else f"{reason} ({', '.join(map(str, frames))} frames)"
        for reason, frames in reasons.items()
    )


def _short(origin: str) -> str:
    """Shortens digests to twelve digits; the record has all digits."""
    return " ".join(
        word[: len("sha256:") + 12] + ";" * word.endswith(";") if word.startswith("sha256:") else word
        for word in origin.split()
    )


def _bases(rows: Iterable[KernelRecord]) -> list[str]:
    """The bases of the ratios: the backend that `auto` prefers here, and the backend that needs no compiler."""
    own = list(dict.fromkeys(row["contender"] for row in rows if row["role"] == "ours"))
    return [name for index, name in enumerate(own) if index == 0 or name == "torch"]


def _times(subject: str, mode: str, rows: Sequence[KernelRecord]) -> KernelTable:
    lengths = sorted({row["frames"] for row in rows})
    medians = {(row["contender"], row["frames"]): statistics.median(row["seconds"]) for row in rows}
    totals = {row["frames"]: row["rows"] * row["frames"] for row in rows}
    cells = []
    for name in dict.fromkeys(row["contender"] for row in rows):
        per_frame = {n: 1e6 * medians[name, n] / totals[n] for n in lengths if (name, n) in medians}
        growth = max(per_frame.values()) / min(per_frame.values())
        cells.append((name, *(number(per_frame[n]) if n in per_frame else "-" for n in lengths), f"{growth:.2f}"))
    columns = ("implementation", *(f"{n} frames" for n in lengths), "max / min")
    return KernelTable(f"{subject}, {_MODES[mode]}: microseconds per frame of a row", columns, tuple(cells))


def _ratios(subject: str, mode: str, base: str, rows: Sequence[KernelRecord]) -> KernelTable:
    lengths = sorted({row["frames"] for row in rows if row["contender"] != base})
    cells = []
    for name in dict.fromkeys(row["contender"] for row in rows if row["contender"] != base):
        pairs = [_seconds(rows, name, base, frames) for frames in lengths]
        cells.append((name, *("-" if pair is None else _text(*pair) for pair in pairs)))
    columns = ("implementation", *(f"{frames} frames" for frames in lengths))
    remarks = ("Below 1x: faster than ours.",)
    return KernelTable(
        f"{subject}, {_MODES[mode]}: times the processor time of `{base}`", columns, tuple(cells), remarks
    )


def _seconds(
    rows: Iterable[KernelRecord], name: str, base: str, frames: int
) -> tuple[Sequence[float], Sequence[float]] | None:
    """The turns of an implementation and of a base at a number of frames; None if one of them was not timed."""
    seconds = {row["contender"]: row["seconds"] for row in rows if row["frames"] == frames}
    return (seconds[name], seconds[base]) if name in seconds and base in seconds else None


def _text(turns: Sequence[float], base: Sequence[float]) -> str:
    """Median, smallest and largest ratio; * marks a single turn."""
    ratio, once = paired_ratio(turns, base), " *" * (len(turns) == 1)
    return f"{number(ratio.value)}x ({number(ratio.low)} to {number(ratio.high)}){once}"


def _memory(rows: Sequence[KernelRecord]) -> list[KernelTable]:
    if not rows:
        return []
    lengths = sorted({row["frames"] for row in rows})
    peaks = {(row["contender"], row["frames"]): row["peak_bytes"] for row in rows if row["outcome"] == "ok"}
    bases = [name for name in ("cpu", "torch") if any(each == name for each, _ in peaks)]
    cells = []
    for name in dict.fromkeys(row["contender"] for row in rows):
        row = [name]
        for frames in lengths:
            if (peak := peaks.get((name, frames))) is None:
                row.append("failed")
                continue
            ratios = [number(peak / peaks[base, frames]) + f"x {base}" for base in bases if peaks.get((base, frames))]
            row.append(f"{size(peak)} ({', '.join(ratios)})")
        cells.append(tuple(row))
    title = f"{rows[0]['subject']}, {_MODES['train']}: peak memory above inputs, each in a fresh process"
    return [KernelTable(title, ("implementation", *(f"{frames} frames" for frames in lengths)), tuple(cells))]


def _threads(rows: Sequence[KernelRecord]) -> list[KernelTable]:
    own = [row for row in rows if row["measured"] == "threads"]
    if not own:
        return []
    cells = []
    for mode in _MODES:
        for frames in sorted({row["frames"] for row in own}):
            here = [row for row in own if row["mode"] == mode and row["frames"] == frames]
            taken = {row["threads"]: row["wall_seconds"] for row in here if row["outcome"] == "ok"}
            if taken:
                medians = (number(1000 * statistics.median(taken[threads])) for threads in (1, 2))
                cells.append((_MODES[mode], str(frames), *medians, _text(taken[1], taken[2])))
            elif here:
                cells.append((_MODES[mode], str(frames), "-", "-", here[0]["reason"]))
    columns = ("pass", "frames", "one thread (ms)", "two threads (ms)", "gain")
    return [KernelTable("selective_scan, `cpu`: wall time with one and two threads", columns, tuple(cells))]
