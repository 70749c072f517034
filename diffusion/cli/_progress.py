"""Progress of long commands: a bar on a terminal, else a line from time to time."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_SECONDS = 30  # between two lines when the console is not a terminal


def bar(console: Console, *fields: str) -> Progress:
    """A progress bar, if the console is a terminal.

    Args:
        fields: names of task fields whose text the bar shows beside the count, such as "loss".
    """
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [TextColumn(f"{{task.fields[{field}]}}") for field in fields]
    columns += [TimeElapsedColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=console, disable=not console.is_terminal)
