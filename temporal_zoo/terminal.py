"""How results look on a terminal: where they go, and the tables of all commands.  Imports rich when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# A file or a pipe has no width; narrow tables there would only break words.
_WIDTH_OF_FILES = 160


def output() -> Console:
    """Standard output, for results; progress and remarks go to standard error."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_FILES)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table, whose columns break long texts rather than cut them."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
