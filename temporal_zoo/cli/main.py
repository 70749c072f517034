"""The `zoo` command: a group that loads its commands from the entry points of the group `temporal_zoo.commands`.

Commands write results to standard output, and messages to standard error.  This module alone turns errors that a user
can correct into one message; every other exception is a bug of this project and keeps its traceback.

Exit codes, which docs/commands.md lists for users (the `epilog` of a command has its own meanings of 1 and 3):

    0    the command did what the user asked
    1    a result is negative, such as a failed check; or a bug, with a traceback
    2    the command cannot do what the user asked, with one message
    3    a time limit was reached, and work is left
    128 + n  signal n stopped the command: 130 is Ctrl-C, 143 `kill`, 141 a closed pipe as in `zoo list | head`
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

from temporal_zoo import __version__
from temporal_zoo._support import terminal
from temporal_zoo._support.signals import exit_code
from temporal_zoo.config import nearest
from temporal_zoo.errors import InvalidInput, UserError

GROUP = "temporal_zoo.commands"
ROOT = Path(__file__).parents[2]
# Import names that other projects use too; our packages define TEMPORAL_ZOO.
SHARED_NAMES = ("bench", "diffusion")
# What a user can do about an OSError.  The message has the text of the system first.
REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some space, or choose another folder",
    errno.EFBIG: "the system limits the size of files here (ulimit -f)",
    errno.EACCES: "choose another folder, or change its permissions",
    errno.EPERM: "choose another folder, or change its permissions",
    errno.EROFS: "choose a folder on another file system",
    errno.EISDIR: "this must be a file",
    errno.ENOTDIR: "a part of this path is a file, and it must be a folder",
    errno.EEXIST: "a file has this name; choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "the system limits the number of open files (ulimit -n)",
    errno.EIO: "the disk or the encoder of this format failed; choose another folder",
}


class Refusal(click.ClickException):
    """The command cannot do what the user asked: one message and exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """A group of commands from entry points.  It lists a command that cannot be loaded with the reason."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_points())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        points = _points().get(name)
        if points is None:
            return None
        try:
            return _load(points)
        except Exception as error:  # a command of another project may raise any error; the others must still work
            return _unavailable(name, error)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _points() and not name.startswith("-"):
            ctx.fail(f"unknown command {name!r}{nearest(name, _points())}; choose from {', '.join(sorted(_points()))}")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        terminal.prepare()
        with _explained():  # `zoo --help` prints here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        with _explained():
            return super().invoke(ctx)


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="temporal-zoo")
def zoo() -> None:
    """Temporal mixers for video diffusion: lists, checks, trains and measures them."""


def explain(error: Exception) -> str | None:
    """The message for an error that a user can correct; None for a bug, which keeps its traceback."""
    if isinstance(error, click.ClickException):
        return None
    if isinstance(error, ModuleNotFoundError):
        return _missing(error.name or "")
    if isinstance(error, OSError) and error.filename is not None:
        remedy = REMEDIES.get(error.errno or 0)
        return f"{os.fsdecode(error.filename)}: {error.strerror}{f'; {remedy}' if remedy else ''}"
    return str(error) if isinstance(error, UserError) else None


@contextmanager
def _explained() -> Iterator[None]:
    """Turns errors that a user can correct into a `Refusal`, and Ctrl-C into its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        raise click.exceptions.Exit(exit_code(signal.SIGINT)) from None
    except Exception as error:
        if (message := explain(error)) is not None:
            raise Refusal(message) from error
        if isinstance(error, (EOFError, BrokenPipeError)):
            # click would treat both as an interrupt by the user, and would print no message.
            raise RuntimeError(f"unexpected {type(error).__name__}: {error}") from error
        raise


def _missing(module: str) -> str | None:
    from temporal_zoo._support.packages import install_command, package

    if (wanted := package(module)) is None:
        return None
    return f"this needs the package {wanted.distribution} ({wanted.purpose}): {install_command(wanted)}"


@cache
def _points() -> dict[str, list[EntryPoint]]:
    """Command -> its entry points: several when several projects define the command."""
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.value not in [other.value for other in points.setdefault(point.name, [])]:
            points[point.name].append(point)
    return points


def _load(points: list[EntryPoint]) -> click.Command:
    if len(points) > 1:
        raise InvalidInput(f"several packages define this command: {', '.join(point.value for point in points)}")
    package = points[0].module.partition(".")[0]
    if package in SHARED_NAMES:
        check_ours(package)
    command = points[0].load()
    if not isinstance(command, click.Command):
        raise TypeError(f"{points[0].value} is not a click command")
    return command


def check_ours(name: str) -> None:
    """Checks that Python imports our package under a name that other projects use too.

    Raises:
        ImportError: Python imports another package; the message has its path and the usual causes.
    """
    package = import_module(name)
    if getattr(package, "TEMPORAL_ZOO", False) is True:
        return
    path = package.__file__ or ", ".join(package.__path__)
    raise ImportError(
        f"Python imports another package named {name!r}\n"
        f"  imported: {path}\n"
        f"  ours:     {ROOT / name / '__init__.py'}\n"
        "The usual causes are:\n"
        f"  1. `python -m` or `python -c` ran in a folder that contains another {name!r}, as some research checkouts\n"
        "     do: use the `zoo` command, or `python -P`;\n"
        "  2. PYTHONPATH names such a folder: unset it;\n"
        f"  3. another distribution installed its {name!r}, perhaps over ours: uninstall it and install temporal-zoo\n"
        "     again, or use one environment for each."
    )


def _unavailable(name: str, error: Exception) -> click.Command:
    """Stands in for a command that cannot be loaded; with any arguments it prints the reason."""
    reason = str(error) or type(error).__name__

    def refuse() -> None:
        raise Refusal(f"`zoo {name}` is not available: {reason}") from error

    return _Unavailable(name, callback=refuse, short_help=f"(not available: {reason.splitlines()[0]})")


class _Unavailable(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return []  # accepts all arguments, also --help


if __name__ == "__main__":
    zoo(prog_name="zoo")
