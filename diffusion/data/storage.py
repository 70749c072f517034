"""Frames of decoded videos, as raw bytes in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion.data import DataError


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
