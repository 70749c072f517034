"""The results of an ablation in words: verdicts, and tables whose entries are text, for a terminal and for a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion.ablations.comparison import CellResults, Difference, Effect, against_floor, costs, measures
from diffusion.ablations.result import Result
from diffusion.evaluation.uncertainty import Estimate
from temporal_zoo._support import terminal

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS = {"failed": "red", "reference": "dim", "lower": "green", "higher": "red"}


@dataclass(frozen=True)
class Sheet:
    """A table as text; a row may end early.

    kinds: of each row, "" or one of reference, failed, lower, higher, which decides its look.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]


def cells_sheet(found: Sequence[CellResults], failures: Mapping[str, str]) -> Sheet:
    """A row for each cell, lines of reference last, and one for each trial that failed (trial -> why)."""
    names, prices = measures(found), costs(found)
    with_floor = any(cell.is_floor for cell in found)
    columns = ["cell", "seeds", *map(measure_words, names), *map(cost_words, prices)]
    if with_floor:
        columns.insert(3, f"{measure_words(names[0])} against identity")
    rows, kinds = [], []
    for cell in found:
        row = [cell.name, str(len(cell.trials)), *(_entry(cell.measure(name)) for name in names)]
        row += ["-" if (price := cell.cost(name)) is None else cost_text(name, price) for name in prices]
        if with_floor:
            gap = against_floor(cell, found, names[0])
            row.insert(3, size(gap) if gap else "-")
        rows.append(tuple(row))
        kinds.append("reference" if cell.reference else "")
    for trial, reason in failures.items():
        rows.append((trial, "failed", reason))
        kinds.append("failed")
    return Sheet(tuple(columns), tuple(rows), tuple(kinds))


def differences_sheet(gaps: Sequence[Difference]) -> Sheet:
    """A row for each difference: absolute, relative, and what its interval allows to say."""
    columns = ("first", "second", "first less second", "in parts of the second", "seeds", "which is to say")
    rows = [
        (
            gap.first, gap.second, f"{gap.absolute.value:+.3g}{_ends(gap.absolute, '+.3g')}",
            percent(gap.relative) if gap.relative else "-", str(len(gap.seeds)), _says(gap),
        )
        for gap in gaps
    ]  # fmt: skip
    return Sheet(columns, tuple(rows), tuple("lower" if gap.lower else "higher" * gap.higher for gap in gaps))


def rich_table(sheet: Sheet, title: str | None = None) -> Table:
    """A sheet for a terminal."""
    made = terminal.table(*sheet.columns, title=title)
    for row, kind in zip(sheet.rows, sheet.kinds, strict=True):
        made.add_row(*row, style=_COLOURS.get(kind))
    return made


def sentence(found: Effect) -> str:
    """The verdict on a contrast: what was found, its interval, and from how many seeds and pairs of cells."""
    (first, second), gap, measure = found.contrast.words, found.overall, measure_words(found.measure)
    if gap is None:
        return f"{first} against {second}: nothing can be said of the {measure} yet, for no seed has all its pairs."
    basis = f"{_counted(len(gap.seeds), 'seed')} x {_counted(len(found.parts), 'pair')} of cells"
    if gap.shown.margin is None:
        told = f"{first} against {second}: {size(gap)} in the {measure} ({basis})."
        return f"{told} One seed gives no interval, so nothing is shown."
    basis = f"95 % interval, {basis}"
    if gap.lower:
        return f"{first} lowers the {measure} by {size(gap, signed=False)} against {second} ({basis})."
    if gap.higher:
        told = f"{first} raises the {measure} by {size(gap, signed=False)} against {second} ({basis})."
        return f"{told} The claim was that it would lower it."
    return f"{first} against {second}: no difference in the {measure} that these seeds can show: {size(gap)} ({basis})."


def mixture(results: Sequence[Result]) -> str | None:
    """A warning where results were made by different versions of the code, and how many by each; else None."""
    counts = Counter(result.sources or "unknown" for result in results)
    if len(counts) < 2:
        return None
    told = ", ".join(f"{count} by {sources}" for sources, count in counts.most_common())
    return f"These results are of different source files ({told}); with another --out all are made by the present ones."


def size(gap: Difference, *, signed: bool = True) -> str:
    """How large a difference is, with its interval: relative where it can be, else absolute."""
    shown = gap.shown if signed or gap.shown.value > 0 else Estimate(-gap.shown.value, gap.shown.margin)
    if gap.relative:
        return percent(shown, signed=signed)
    style = "+.3g" if signed else ".3g"
    return f"{shown.value:{style}}{_ends(shown, style)}"


def percent(part: Estimate, *, signed: bool = True) -> str:
    """A part as a percentage, with the ends of its 95 % interval: "-3.1 % (-4.2 to -2.0)"."""
    part = Estimate(100 * part.value, None if part.margin is None else 100 * part.margin)
    coarse = abs(part.value if part.margin is None else part.margin)
    decimals = min(4, max(1, -math.floor(math.log10(coarse)))) if coarse else 1
    style = f"{'+' if signed else ''}.{decimals}f"
    return f"{part.value:{style}} %{_ends(part, style)}"


def measure_words(name: str) -> str:
    """A measure as it is called in sentences and on axes."""
    return {"held_out": "held-out loss", "fvd": "FVD"}.get(name, name.replace("_", " "))


def cost_words(name: str) -> str:
    """A cost as it is called in columns and on axes."""
    words = {"stored_bytes": "stored for backward, one clip", "step_s": "seconds per training step"}
    return words.get(name, name.replace("_", " "))


def cost_text(name: str, value: float) -> str:
    """A cost; bytes have their unit beside them, others in their name."""
    if name.endswith("_bytes"):
        return bytes_text(value)
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def bytes_text(count: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB" if count < 1000 else f"{count:,.0f} GiB"


def _entry(estimate: Estimate | None) -> str:
    return "-" if estimate is None else str(estimate)


def _ends(estimate: Estimate, style: str) -> str:
    if estimate.margin is None:
        return ""
    return f" ({estimate.value - estimate.margin:{style}} to {estimate.value + estimate.margin:{style}})"


def _says(gap: Difference) -> str:
    if gap.shown.margin is None:
        return "one seed: no interval"
    if gap.lower or gap.higher:
        return "the first is better" if gap.lower else "the second is better"
    return "no difference shown"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
