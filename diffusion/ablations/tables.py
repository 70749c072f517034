"""Tables of an ablation's results as text, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion.ablations.comparison import CellResults, Difference, against_control, costs, measures
from diffusion.ablations.text import cost_label, cost_text, difference_text, interval_text, measure_label, percent_text
from temporal_zoo._support import terminal

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS = {"failed": "red", "reference": "dim", "lower": "green", "higher": "red"}


@dataclass(frozen=True)
class TextTable:
    """A table of text; a row may end early.

    kinds: the kind of each row, which decides its look: "", reference, failed, lower or higher.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]


def cells_table(all_cells: Sequence[CellResults], failures: Mapping[str, str]) -> TextTable:
    """A row for each cell, references last, and one for each failed trial (trial -> reason)."""
    names, prices = measures(all_cells), costs(all_cells)
    with_control = any(cell.is_control for cell in all_cells)
    columns = ["cell", "seeds", *map(measure_label, names), *map(cost_label, prices)]
    if with_control:
        columns.insert(3, f"{measure_label(names[0])} against identity")
    rows, kinds = [], []
    for cell in all_cells:
        row = [cell.name, str(len(cell.trials)), *(str(cell.measure(name) or "-") for name in names)]
        row += ["-" if (price := cell.cost(name)) is None else cost_text(name, price) for name in prices]
        if with_control:
            gap = against_control(cell, all_cells, names[0])
            row.insert(3, difference_text(gap) if gap else "-")
        rows.append(tuple(row))
        kinds.append("reference" if cell.reference else "")
    for trial, reason in failures.items():
        rows.append((trial, "failed", reason))
        kinds.append("failed")
    return TextTable(tuple(columns), tuple(rows), tuple(kinds))


def differences_table(gaps: Sequence[Difference]) -> TextTable:
    """A row for each difference: absolute, relative, and the conclusion from its interval."""
    columns = ("first", "second", "first minus second", "relative to the second", "seeds", "conclusion")
    rows = [
        (
            gap.first, gap.second, f"{gap.absolute.value:+.3g}{interval_text(gap.absolute, '+.3g')}",
            percent_text(gap.relative) if gap.relative else "-", str(len(gap.seeds)), _conclusion(gap),
        )
        for gap in gaps
    ]  # fmt: skip
    return TextTable(columns, tuple(rows), tuple("lower" if gap.lower else "higher" * gap.higher for gap in gaps))


def rich_table(content: TextTable, title: str | None = None) -> Table:
    """A table for the terminal."""
    table = terminal.table(*content.columns, title=title)
    for row, kind in zip(content.rows, content.kinds, strict=True):
        table.add_row(*row, style=_COLOURS.get(kind))
    return table


def _conclusion(gap: Difference) -> str:
    if gap.shown.margin is None:
        return "one seed: no interval"
    if gap.lower or gap.higher:
        return "the first is better" if gap.lower else "the second is better"
    return "no difference shown"
