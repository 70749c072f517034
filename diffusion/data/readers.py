"""Decoding: one item (a video file, an array file, a folder of frames) to uint8 frames of the training size.

Pictures are cut to the square in their centre, then averaged over areas.  Letters: n frames, h height, w width,
c channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from diffusion.data import DataError
from diffusion.data.layout import ARRAYS, images_of
from temporal_zoo.packages import install_command, package

UNKNOWN_FPS = 12.0  # of arrays and frame folders, which do not say
_BLOCK = 64


class UnreadableVideo(DataError):
    """One item that cannot be decoded; others may."""


@dataclass(frozen=True)
class Recording:
    """One video while it is being decoded: blocks are (n, size, size, c) uint8, in the order of time."""

    fps: float
    height: int
    width: int
    channels: int
    blocks: Iterator[np.ndarray]


def recordings(path: Path, size: int) -> Iterator[Recording]:
    """The videos of one item.  Read all blocks of one before asking for the next.

    Raises: UnreadableVideo, naming the item; DataError when a package is missing.
    """
    if path.is_dir():
        yield _frame_folder(path, size)
    elif path.stat().st_size == 0:
        raise UnreadableVideo(f"{path}: the file is empty")
    elif path.suffix.lower() in ARRAYS:
        yield from _arrays(path, size)
    else:
        yield from _compressed(path, size)


def need(module: str, purpose: str) -> ModuleType:
    """Imports an optional package.  Raises: DataError with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        wanted = package(module)
        assert wanted is not None
        raise DataError(f"{purpose} needs {wanted.distribution} ({error}): {install_command(wanted)}") from error


def shrink(frames: np.ndarray, size: int) -> np.ndarray:
    """(n, h, w, c) uint8 to (n, size, size, c): the centre square, each new pixel the mean of the area it covers."""
    height, width = frames.shape[1:3]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = frames[:, top : top + edge, left : left + edge]
    if edge == size:
        return square
    cover = _cover(edge, size)
    rows = np.tensordot(square.astype(np.float32), cover, (1, 1))  # n w c y
    return (np.tensordot(rows, cover, (1, 1)) + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def _cover(edge: int, size: int) -> np.ndarray:
    """(size, edge) share of each old pixel in each new one along one axis; rows sum to 1."""
    ends = np.arange(size + 1) * (edge / size)
    pixel = np.arange(edge)
    overlap = np.minimum(ends[1:, None], pixel + 1) - np.maximum(ends[:-1, None], pixel)
    return (np.maximum(overlap, 0) * (size / edge)).astype(np.float32)


def _compressed(path: Path, size: int) -> Iterator[Recording]:
    """mp4, gif, avi, webm, mkv by PyAV.  Frames are counted as they come: headers are known to lie."""
    av = need("av", f"reading {path.name}")
    with _naming(path, av), av.open(str(path)) as container:
        if not container.streams.video:
            raise UnreadableVideo(f"{path}: there is no video in it")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        fps = float(stream.average_rate or stream.guessed_rate or UNKNOWN_FPS)
        yield Recording(fps, stream.height, stream.width, 3, _decoded(path, av, container, size))


def _decoded(path: Path, av: ModuleType, container, size: int) -> Iterator[np.ndarray]:
    resize = av.video.reformatter.VideoReformatter()  # shared by all frames: a new one each time is slow and leaks
    block = []
    with _naming(path, av):
        for frame in container.decode(video=0):
            scale = size / min(frame.height, frame.width)
            height, width = max(size, round(frame.height * scale)), max(size, round(frame.width * scale))
            picture = resize.reformat(frame, width, height, format="rgb24", interpolation="AREA").to_ndarray()
            block.append(shrink(picture[None], size)[0])
            if len(block) == _BLOCK:
                yield np.stack(block)
                block.clear()
    if block:
        yield np.stack(block)


@contextmanager
def _naming(path: Path, av: ModuleType) -> Iterator[None]:
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: {error.strerror or error}") from error


def _frame_folder(path: Path, size: int) -> Recording:
    image = need("PIL.Image", f"reading the frames in {path.name}")
    paths = images_of(path)

    def load(file: Path) -> np.ndarray:
        try:
            with image.open(file) as picture:
                return np.asarray(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for broken PNG files
            raise UnreadableVideo(f"{file}: {error}") from error

    height, width = load(paths[0]).shape[:2]
    blocks = (
        np.concatenate([shrink(load(file)[None], size) for file in paths[start : start + _BLOCK]])
        for start in range(0, len(paths), _BLOCK)
    )
    return Recording(UNKNOWN_FPS, height, width, 3, blocks)


def _arrays(path: Path, size: int) -> Iterator[Recording]:
    """npy and npz: uint8 (t, h, w, c) or (videos, t, h, w, c), or with the channels before height and width."""
    try:
        array = _from_npz(path) if path.suffix.lower() == ".npz" else np.load(path, mmap_mode="r", allow_pickle=False)
    except UnreadableVideo:
        raise
    except Exception as error:  # damage shows as ValueError, EOFError, zipfile.BadZipFile, zlib.error and others
        raise UnreadableVideo(f"{path}: {error}") from error
    for video in _channels_last(array, path):
        height, width, channels = video.shape[1:]
        blocks = (shrink(video[start : start + _BLOCK], size) for start in range(0, len(video), _BLOCK))
        yield Recording(UNKNOWN_FPS, height, width, channels, blocks)


def _from_npz(path: Path) -> np.ndarray:
    """The array called "video", or the only one.  Compressed archives cannot be mapped, so all of it is read."""
    with path.open("rb") as file:
        held = np.load(file, allow_pickle=False)
        if isinstance(held, np.ndarray):
            raise UnreadableVideo(f"{path}: this is an .npy file; name it so")
        names = held.files
        if "video" not in names and len(names) != 1:
            raise UnreadableVideo(f'{path}: none of its arrays ({", ".join(names) or "none"}) is called "video"')
        return held["video" if "video" in names else names[0]]


def _channels_last(array: np.ndarray, path: Path) -> np.ndarray:
    """(videos, t, h, w, c) view of an array whose axis order is told from where its 1 or 3 channels are."""
    if array.dtype != np.uint8:
        raise UnreadableVideo(f"{path}: {_wrong_type(array)}")
    shape = array.shape
    if array.ndim not in (4, 5):
        raise UnreadableVideo(
            f"{path}: its shape is {shape}; store (frames, height, width, channels), with videos in front for several"
        )
    if 0 in shape:
        raise UnreadableVideo(f"{path}: its shape is {shape}: there are no frames in it")
    last, first = shape[-1] in (1, 3), shape[-3] in (1, 3)
    if last == first:
        why = (
            "both the last axis and the third from the end could be" if last else "neither the last axis nor the third"
        )
        hint = "" if last else " from the end is"
        raise UnreadableVideo(
            f"{path}: its shape is {shape}; {why}{hint} 1 or 3 channels; store (frames, height, width, 3)"
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
