"""One file, with one or several videos; a hash of each video's name decides its split."""

from __future__ import annotations

from pathlib import Path

from diffusion.data import DataError
from diffusion.data.files import ARRAYS, READABLE, VIDEOS, Listing, VideoFile, is_animation, unusable
from diffusion.data.names import printable


def matches(path: Path) -> bool:
    """Whether `path` is not a folder."""
    return not path.is_dir()


def search(path: Path) -> Listing:
    """Checks the file without opening it.

    Raises:
        DataError: it is not a video that can be read.
    """
    why = unusable(path)
    if why is None and path.suffix.lower() not in VIDEOS | ARRAYS and not is_animation(path):
        why = READABLE
    if why:
        raise DataError(f"{printable(path)} is not a video that can be read: {why}")
    return Listing([VideoFile.of(path, path.name, path.stat())])
