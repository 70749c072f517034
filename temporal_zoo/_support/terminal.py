"""How results look on a terminal: where they go, and the tables of all commands.  Imports rich when asked."""

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

# A file or a pipe has no width; narrow tables there would only break words.
_WIDTH_OF_FILES = 160

# What shells report of a program that wrote into a pipe which nothing reads: 128 + SIGPIPE.
PIPE_CLOSED = 141
_PLAIN_ERRORS = "temporal_zoo.plain"
# Characters of ours, for terminals that cannot show them.
_PLAIN = {"×": "x", "±": "+-", "≥": ">=", "≤": "<=", "–": "-", "—": "-", "…": "...", "²": "^2", "→": "->"}


def prepare() -> None:
    """Lets every text be printed, on an ASCII terminal too, and errors of standard output name it."""
    codecs.register_error(_PLAIN_ERRORS, _plain)
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _named(sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        # Not where a program put a stream of its own, or one that cannot be changed any more.
        if hasattr(stream, "reconfigure") and stream.errors != _PLAIN_ERRORS:
            with suppress(OSError):
                stream.reconfigure(errors=_PLAIN_ERRORS)


def _named(stream: Any) -> Any:
    """The same stream, whose errors name it; itself where it is no file (Windows' console is none)."""
    if type(getattr(stream.buffer, "raw", stream.buffer)) is not io.FileIO:
        return stream
    raw = _StandardOutput(stream.fileno(), "w", closefd=False)
    buffered = hasattr(stream.buffer, "raw")  # not after `python -u`
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if buffered else raw,
        encoding=stream.encoding,
        errors=_PLAIN_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _StandardOutput(io.FileIO):
    """Standard output that fails only once, so that Python does not complain again when it ends."""

    _failed = False

    def write(self, data: Any, /) -> int:
        if self._failed or not len(data):  # click asks what it has by writing nothing
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
    """Standard output, for results; progress and remarks go to standard error.

    Args:
        highlight: numbers and paths in colour, on a terminal that shows colours.
    """
    from rich.console import Console

    console = Console(highlight=highlight)
    return console if console.is_terminal else Console(highlight=highlight, width=_WIDTH_OF_FILES)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table, whose columns break long texts rather than cut them."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def grid() -> Table:
    """An empty grid of two columns: names in bold, and what belongs to them."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    return made


def progress() -> Progress:
    """A display of progress on standard error, which disappears at the end."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True)


def messages() -> Console:
    """Standard error, for progress and remarks: texts are printed as they are, without markup and line breaks."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def yes_no(value: bool) -> str:
    """ "yes" or "no"."""
    return "yes" if value else "no"


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for a character that cannot be encoded; a byte that is not UTF-8 stays that byte."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter, following = error.object[error.start], error.start + 1
    if "\udc80" <= letter <= "\udcff":
        return letter.encode("ascii", "surrogateescape"), following
    return _PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode(), following
