"""The `zoo` command: a group whose commands are entry points of the group `temporal_zoo.commands`, loaded when needed.

Results go to stdout, talk to stderr.  Exit codes: 0 done, 1 some case failed, 2 asked wrongly, 141 the reader of a pipe
has left.  Errors that a user can mend become one message, here and nowhere else; any other exception is a bug of ours
and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
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
from temporal_zoo.config import nearest
from temporal_zoo.errors import InvalidInput, UserError

GROUP = "temporal_zoo.commands"
ROOT = Path(__file__).parents[2]
# Import names that other packages use too; ours carry a mark.
SHARED_NAMES = ("bench", "diffusion")


# What to do about a file that cannot be read or written, after the system's own words.
REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some space, or choose another folder",
    errno.EFBIG: "the system limits the size of files here (ulimit -f)",
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose a folder on another file system",
    errno.EISDIR: "a file is needed here",
    errno.ENOTDIR: "a part of this path is a file where a folder is needed",
    errno.EEXIST: "a file of this name is in the way; choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "the system limits the number of open files (ulimit -n)",
    errno.EIO: "the disk or the writer of this format reports a failure; choose another folder",
}


class Refusal(click.ClickException):
    """One clear message and exit code 2: what was asked cannot be done as asked."""

    exit_code = 2


class Commands(click.Group):
    """A group that finds its commands by entry point; one that cannot be loaded is listed with the reason."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_points())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        points = _points().get(name)
        if points is None:
            return None
        try:
            return _load(points)
        except Exception as error:  # a command of another package may fail in any way, and must not break the rest
            return _unavailable(name, error)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _points() and not name.startswith("-"):
            ctx.fail(
                f"there is no command {name!r}{nearest(name, _points())}; there are {', '.join(sorted(_points()))}"
            )
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        terminal.prepare()
        with _explained():  # `zoo --help` writes here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        with _explained():
            return super().invoke(ctx)


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="temporal-zoo")
def zoo() -> None:
    """Temporal mixers for video diffusion: look at them, check them, train with them, measure them."""


def explain(error: Exception) -> str | None:
    """What to tell a user about an error that they can mend, or None when it is a bug and deserves its traceback."""
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
    """Turns errors that a user can mend into a `Refusal`."""
    try:
        yield
    except Exception as error:
        if (message := explain(error)) is not None:
            raise Refusal(message) from error
        if isinstance(error, (EOFError, BrokenPipeError)):
            # click takes both for a user who has left, and would end without a word.
            raise RuntimeError(f"unexpected {type(error).__name__}: {error}") from error
        raise


def _missing(module: str) -> str | None:
    from temporal_zoo._support.packages import install_command, package

    if (wanted := package(module)) is None:
        return None
    return f"this needs the package {wanted.distribution} ({wanted.purpose}): {install_command(wanted)}"


@cache
def _points() -> dict[str, list[EntryPoint]]:
    """Command -> its entry points: one, or several when packages clash."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.value not in [other.value for other in found.setdefault(point.name, [])]:
            found[point.name].append(point)
    return found


def _load(points: list[EntryPoint]) -> click.Command:
    if len(points) > 1:
        raise InvalidInput(f"several packages ship this command: {', '.join(point.value for point in points)}")
    package = points[0].module.partition(".")[0]
    if package in SHARED_NAMES:
        check_ours(package)
    command = points[0].load()
    if not isinstance(command, click.Command):
        raise TypeError(f"{points[0].value} is no click command")
    return command


def check_ours(name: str) -> None:
    """Checks that the package which Python finds under a name that others use as well is ours.

    Raises:
        ImportError: another package was found first; the message says where it is and how that usually comes about.
    """
    found = import_module(name)
    if getattr(found, "TEMPORAL_ZOO", False) is True:
        return
    place = found.__file__ or ", ".join(found.__path__)
    raise ImportError(
        f"another package named {name!r} was found first\n"
        f"  found: {place}\n"
        f"  ours:  {ROOT / name / '__init__.py'}\n"
        "This usually has one of three reasons:\n"
        f"  1. Python was started by `python -m` or `python -c` in a folder that holds a {name!r} of its own, as some\n"
        "     research checkouts do: use the `zoo` command, or `python -P`;\n"
        "  2. PYTHONPATH names such a folder: unset it;\n"
        f"  3. another distribution installed its {name!r}, perhaps over ours: uninstall it and install temporal-zoo\n"
        "     again, or give each an environment of its own."
    )


def _unavailable(name: str, error: Exception) -> click.Command:
    """A stand-in for a command that could not be loaded: says why, whatever it is asked."""
    reason = str(error) or type(error).__name__

    def refuse() -> None:
        raise Refusal(f"`zoo {name}` is not available: {reason}") from error

    return _Unavailable(name, callback=refuse, short_help=f"(not available: {reason.splitlines()[0]})")


class _Unavailable(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return []  # any arguments, --help included, get the reason


if __name__ == "__main__":
    zoo(prog_name="zoo")
