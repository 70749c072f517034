"""Files that are written whole or not at all, JSON files, and errors of files that always name their file."""

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


@contextmanager
def naming(path: Path | str, *aliases: Path | str) -> Iterator[None]:
    """Within the block, an OSError that names no file, or one of `aliases`, names `path`.

    Calls that know only a descriptor raise such errors (a write to a full disk, a flush), and so do writers of other
    packages, with a text and no number.
    """
    try:
        yield
    except OSError as error:
        if error.filename not in (None, *map(str, aliases)):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it appears under its name when the block ends well, and not at all when it does not.

    Its folder is created where it is missing.

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
    """Writes a text in UTF-8, whole or not at all.  Raises: OSError with the path."""
    with written_whole(path) as file:
        # Half characters stand for bytes of names that are not UTF-8.
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object, whole or not at all.  Raises: OSError with the path."""
    with written_whole(path) as file:
        file.write(json.dumps(content).encode())


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        remedy: what to do about a damaged file, for the message.

    Raises:
        DamagedFile: it holds no JSON object.
        OSError: with the path, when it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged ({error}); {remedy}") from error
