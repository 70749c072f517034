"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_RULES = {"l": "---", "r": "---:"}


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """A table, without a line break at its end.

    Args:
        columns: the header.
        rows: cells of each row; `|` in a cell is escaped.
        align: a letter for each column, "l" or "r"; by default all columns are left-aligned.
    """
    rules = [_RULES[letter] for letter in align or "l" * len(columns)]
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rules, *cells))
