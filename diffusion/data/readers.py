"""Decoding: one item (a video file, an array file, a folder of frames) to uint8 frames of the training size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffusion.data.arrays import arrays
from diffusion.data.movies import movie
from diffusion.data.pictures import animation, frame_folder
from diffusion.data.recording import UNKNOWN_FPS, Recording, UnreadableVideo, shrink
from diffusion.data.search import ANIMATED, ARRAYS

__all__ = ["UNKNOWN_FPS", "Recording", "UnreadableVideo", "recordings", "shrink"]


def recordings(path: Path, size: int) -> Iterator[Recording]:
    """The videos of one item.  Read all blocks of one before asking for the next.

    Raises: UnreadableVideo, naming the item; DataError when a package is missing.
    """
    try:
        is_folder, size_bytes = path.is_dir(), path.stat().st_size
    except OSError as error:
        raise UnreadableVideo(path, error.strerror or error) from error
    if not is_folder and size_bytes == 0:
        raise UnreadableVideo(path, "the file is empty")
    ending = path.suffix.lower()
    read = frame_folder if is_folder else arrays if ending in ARRAYS else animation if ending in ANIMATED else movie
    yield from read(path, size)
