"""Files that exist either whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from diffusion.data import DataError
from temporal_zoo.files import cache_home as cache_home
from temporal_zoo.files import naming


def made(folder: Path) -> Path:
    """The folder, made if need be.  Raises: DataError when that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it appears under its name when the block ends well, and not at all when it does not.

    Raises: DataError when the folder cannot be written or its disk is full.
    """
    unfinished = made(path.parent) / f".{path.name}-{secrets.token_hex(4)}.part"
    try:
        file = unfinished.open("xb")
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    try:
        with naming(path), file:
            yield file
        os.replace(unfinished, path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DataError(
                f"the disk that holds {path.parent} is full; free some space, or choose another folder"
            ) from error
        raise


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot write in {folder} ({error.strerror}); choose another folder, or set ZOO_CACHE")


def read_frames(path: Path, frames: slice, *, length: int, size: int, channels: int, first: int = 0) -> np.ndarray:
    """Some frames of a video, (frames, size, size, channels) uint8; of the file, only what spans them is read.

    path: a file of raw frames; the video is the `length` of them from number `first` on.
    Raises: DataError when the file is missing or too short.
    """
    start, stop, step = frames.indices(length)
    frame_bytes = size**2 * channels
    wanted = max(0, stop - start) * frame_bytes
    try:
        pixels = np.fromfile(path, np.uint8, wanted, offset=(first + start) * frame_bytes)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    if pixels.size != wanted:
        raise DataError(f"{path} is damaged: it ends too soon")
    return pixels.reshape(-1, size, size, channels)[::step]


def size_of(path: Path) -> int | None:
    """Size of a file in bytes; None when there is none."""
    return path.stat().st_size if path.exists() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.  Raises: DataError when the file is damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); delete {path.parent} and build it again") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON object, whole or not at all."""
    with written_whole(path) as file:
        file.write(json.dumps(content).encode())
