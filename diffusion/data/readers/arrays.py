"""Reads array files, npy and npz: uint8, one video or several.

Letters: t frames, h height, w width, c channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffusion.data.readers.pixels import centre_square, too_many_pixels
from diffusion.data.readers.recording import BLOCK, Recording, UnreadableVideo

_BLOCK_PIXELS = BLOCK * 1024 * 1024
_MOST_BYTES = 8 * 2**30  # of an array in an archive, which is read as a whole


def arrays(path: Path, size: int) -> Iterator[Recording]:
    """Reads npy and npz: uint8 (t, h, w, c) or (videos, t, h, w, c), or with the channels before height and width."""
    try:
        array = _from_npz(path) if path.suffix.lower() == ".npz" else np.load(path, mmap_mode="r", allow_pickle=False)
    except UnreadableVideo:
        raise
    except Exception as error:  # a damaged file raises ValueError, EOFError, zipfile.BadZipFile, zlib.error and others
        raise UnreadableVideo(path, error) from error
    for video in _channels_last(array, path):
        height, width, channels = video.shape[1:]
        if reason := too_many_pixels(height, width):
            raise UnreadableVideo(path, reason)
        step = max(1, min(BLOCK, _BLOCK_PIXELS // (height * width)))
        blocks = (centre_square(video[start : start + step], size) for start in range(0, len(video), step))
        yield Recording(height, width, channels, blocks)


def _from_npz(path: Path) -> np.ndarray:
    """Reads the array called "video", or the only one, as a whole: a compressed archive cannot be memory-mapped."""
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise UnreadableVideo(path, "this is an npy file; change its extension to .npy")
        names = archive.files
        if "video" not in names and len(names) != 1:
            raise UnreadableVideo(path, f'none of its arrays ({", ".join(names) or "none"}) is called "video"')
        name = "video" if "video" in names else names[0]
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.zip.infolist()}
        if sizes[name] > _MOST_BYTES:
            raise UnreadableVideo(path, f"its array takes {sizes[name] / 2**30:,.0f} GiB of memory; store it as npy")
        return archive[name]


def _channels_last(array: np.ndarray, path: Path) -> np.ndarray:
    """A (videos, t, h, w, c) view of an array; the axis of length 1 or 3 is the channels."""
    if array.dtype != np.uint8:
        raise UnreadableVideo(path, _wrong_type(array))
    shape = array.shape
    if array.ndim not in (4, 5):
        raise UnreadableVideo(
            path,
            f"its shape is {shape}; store (frames, height, width, channels), or several of these in a first axis",
        )
    if 0 in shape:
        raise UnreadableVideo(path, f"its shape is {shape}: there are no frames in it")
    last, first = shape[-1] in (1, 3), shape[-3] in (1, 3)
    if last == first:
        why = (
            "both the last axis and the third from the end could be" if last else "neither the last axis nor the third"
        )
        hint = "" if last else " from the end is"
        raise UnreadableVideo(
            path, f"its shape is {shape}; {why}{hint} 1 or 3 channels; store (frames, height, width, 3)"
        )
    ordered = array if last else np.moveaxis(array, -3, -1)
    return ordered if array.ndim == 5 else ordered[None]


def _wrong_type(array: np.ndarray) -> str:
    if array.dtype.kind == "f" and array.size:
        low, high = float(np.min(array)), float(np.max(array))
        if low >= 0 and high <= 1:
            return f"its numbers are {array.dtype} in [0, 1]; store (255 * x).round() as uint8"
        if low >= -1 and high <= 1:
            return f"its numbers are {array.dtype} in [-1, 1]; store (127.5 * (x + 1)).round() as uint8"
    return f"its numbers are {array.dtype}; store uint8 in 0..255"
