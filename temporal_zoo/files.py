"""Files that are written whole or not at all, and errors of files that always name their file."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from temporal_zoo.errors import InvalidInput


def cache_home() -> Path:
    """$ZOO_CACHE, else temporal_zoo in $XDG_CACHE_HOME, else ~/.cache/temporal_zoo.

    Raises:
        InvalidInput: the user has no home folder, as in some containers, and nothing else is set.
    """
    chosen, shared = os.environ.get("ZOO_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return Path(shared or "~/.cache").expanduser() / "temporal_zoo"
    except RuntimeError as error:
        raise InvalidInput("there is no home folder for the cache; set ZOO_CACHE to a folder") from error


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

    Its folder is made if need be.

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
