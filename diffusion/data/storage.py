"""Where decoded videos are kept, and files that exist either whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from diffusion.data import DataError


def cache_home() -> Path:
    """$ZOO_CACHE, else temporal_zoo in $XDG_CACHE_HOME, else ~/.cache/temporal_zoo."""
    if chosen := os.environ.get("ZOO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "temporal_zoo"


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it appears under its name when the block ends well, and not at all when it does not.

    Raises: DataError when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    except OSError as error:
        raise DataError(
            f"cannot write in {path.parent} ({error.strerror}); choose another folder, or set ZOO_CACHE"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
