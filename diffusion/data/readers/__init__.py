"""Decodes video files to uint8 frames of the training size: `recordings(path, size)`.  One reader per kind of file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffusion.data.files import ANIMATED, ARRAYS
from diffusion.data.readers.arrays import arrays
from diffusion.data.readers.movies import movie
from diffusion.data.readers.pictures import animation, frame_folder
from diffusion.data.readers.recording import Recording, UnreadableVideo

__all__ = ["Recording", "UnreadableVideo", "recordings"]


def recordings(path: Path, size: int) -> Iterator[Recording]:
    """Decodes the videos of one file, or of one folder of frames.

    The caller reads all blocks of one video before it asks for the next.

    Raises:
        UnreadableVideo: the file cannot be decoded.  The message names it.
        MissingPackage: the package that decodes it is not installed.
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
