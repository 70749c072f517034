"""Terminal output of all commands: results, messages, tables, progress.  Imports rich only inside functions."""

from __future__ import annotations

import codecs
import io
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from temporal_zoo._support.files import naming

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

# Width of tables in files and pipes, which have none of their own.
_WIDTH_OF_FILES = 160

# Interval of the lines that a long command prints instead of a progress bar, if the console is not a terminal.
LOG_SECONDS = 30

# 128 + SIGPIPE: the exit code of a program whose reader closed the pipe.
PIPE_CLOSED = 141
_PLAIN_ERRORS = "temporal_zoo.plain"
# Replacements for terminals that cannot show these characters.
_PLAIN = {"×": "x", "±": "+-", "≥": ">=", "≤": "<=", "–": "-", "—": "-", "…": "...", "²": "^2", "→": "->"}


def prepare() -> None:
    """Prepares the streams: every text can be printed, on ASCII terminals too, and errors name standard output."""
    codecs.register_error(_PLAIN_ERRORS, _plain)
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _named(sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        # Skips streams that another program replaced or detached.
        if hasattr(stream, "reconfigure") and stream.errors != _PLAIN_ERRORS:
            with suppress(OSError):
                stream.reconfigure(errors=_PLAIN_ERRORS)


def _named(stream: Any) -> Any:
    """A stream to the same file whose errors name it; the stream itself if it is not a file (a Windows console)."""
    if type(getattr(stream.buffer, "raw", stream.buffer)) is not io.FileIO:
        return stream
    raw = _StandardOutput(stream.fileno(), "w", closefd=False)
    buffered = hasattr(stream.buffer, "raw")  # false under `python -u`
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if buffered else raw,
        encoding=stream.encoding,
        errors=_PLAIN_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _StandardOutput(io.FileIO):
    """Standard output that raises an error once, so that Python does not report it again at exit."""

    _failed = False

    def write(self, data: Any, /) -> int:
        if self._failed or not len(data):  # click writes nothing to test the stream
            return len(data)
        try:
            with naming("standard output"):
                return super().write(data)
        except OSError as error:
            self._failed = True
            if isinstance(error, BrokenPipeError):  # as in `zoo list | head`
                raise SystemExit(PIPE_CLOSED) from None
            raise


def output(*, highlight: bool = True) -> Console:
    """A console on standard output, for results.

    Args:
        highlight: shows numbers and paths in colour.
    """
    from rich.console import Console

    console = Console(highlight=highlight)
    return console if console.is_terminal else Console(highlight=highlight, width=_WIDTH_OF_FILES)


def table(*columns: str, numbers: tuple[str, ...] = (), title: str | None = None, caption: str | None = None) -> Table:
    """An empty table that wraps long texts.

    Args:
        columns: names of the columns of texts, on the left.
        numbers: names of the columns of numbers, on the right; they are right-aligned.
        title: a line above the table.
        caption: a line below the table.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    empty = Table(
        box=SIMPLE_HEAD, title=title, title_style="bold", title_justify="left", caption=caption, caption_justify="left"
    )
    for column in columns:
        empty.add_column(column, overflow="fold")
    for column in numbers:
        empty.add_column(column, overflow="fold", justify="right")
    return empty


def grid() -> Table:
    """An empty grid of two columns: names in bold, and their values."""
    from rich.table import Table

    empty = Table.grid(padding=(0, 2))
    empty.add_column(style="bold", no_wrap=True)
    empty.add_column(overflow="fold")
    return empty


def progress() -> Progress:
    """A progress display on standard error; it disappears at the end."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True)


def progress_bar(console: Console, *fields: str, transient: bool = False) -> Progress:
    """A progress bar with counts and times, if the console is a terminal.

    Args:
        fields: names of task fields whose text the bar shows beside the count, such as "loss".
        transient: removes the bar at the end.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [TextColumn(f"{{task.fields[{field}]}}") for field in fields]
    columns += [TimeElapsedColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


def messages() -> Console:
    """A console on standard error, for progress and messages, without markup and wrapping."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def yes_no(value: bool) -> str:
    """ "yes" or "no"."""
    return "yes" if value else "no"


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replaces a character that cannot be encoded; keeps bytes that are not UTF-8."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter, following = error.object[error.start], error.start + 1
    if "\udc80" <= letter <= "\udcff":
        return letter.encode("ascii", "surrogateescape"), following
    return _PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode(), following
