"""Whole writes, JSON files, the cache folder, and OSErrors that always name their file."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from temporal_zoo.errors import InvalidInput


class DamagedFile(InvalidInput):
    """A file does not hold what it should; the message says what to do about it."""


def cache_folder() -> Path:
    """The folder of decoded videos, weights and compiled libraries; it may not exist yet.

    It is $ZOO_CACHE, or else temporal_zoo in $XDG_CACHE_HOME, or else ~/.cache/temporal_zoo.

    Raises:
        InvalidInput: the path begins with ~ and there is no home folder.
    """
    chosen = os.environ.get("ZOO_CACHE")
    path = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "temporal_zoo"
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InvalidInput(f"no cache folder: {path} begins with ~, and {error} Set ZOO_CACHE to a folder") from error


@contextmanager
def naming(path: Path | str, *aliases: Path | str) -> Iterator[None]:
    """Makes every OSError of the block name `path`, if it names no file or one of `aliases`.

    Calls with a file descriptor raise such errors (a write to a full disk, a flush), and so do writers of other
    packages, which may give a text and no number.
    """
    try:
        yield
    except OSError as error:
        if error.filename not in (None, *map(str, aliases)):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name only when the block ends without an exception.

    Creates its folder where it is missing.

    Raises:
        OSError: with the path, when it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    with naming(path, unfinished):
        try:
            with unfinished.open("xb") as file:
                yield file
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text, whole or not at all.  Raises: OSError with the path."""
    with written_whole(path) as file:
        # Lone surrogates stand for bytes of file names that are not UTF-8.
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object, whole or not at all.  Raises: OSError with the path."""
    with written_whole(path) as file:
        file.write(json.dumps(content).encode())


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        remedy: end of the error message, what to do about a damaged file.

    Raises:
        DamagedFile: it holds no JSON object.
        OSError: with the path, when it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged ({error}); {remedy}") from error
