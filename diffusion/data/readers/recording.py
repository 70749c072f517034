"""What every reader returns: a `Recording`, cropped to the centre square and resized by area averaging.

Letters: n frames, h height, w width, c channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

import numpy as np

from diffusion.data import DataError
from diffusion.data.names import printable

UNKNOWN_FPS = 12.0  # of arrays and frame folders, which do not store a frame rate
BACKGROUND = 255  # white, as on a web page; shows through transparent pixels
MOST_PIXELS = 8192 * 8192  # of one picture; a header may declare far more than fits in memory
BLOCK = 64

Frame = TypeVar("Frame")


class UnreadableVideo(DataError):
    """One file cannot be decoded; others may be.  The message is its path and the reason, on one line."""

    def __init__(self, path: str | os.PathLike[str], reason: object) -> None:
        super().__init__(f"{printable(path)}: {printable(str(reason))}")


@dataclass
class Recording:
    """One video while it is being decoded.

    fps: frames per second.  Final when all blocks are read, because only then all time stamps are known.
    height, width, channels: as a viewer shows the video, before it is cropped and resized.
    blocks: (n, size, size, c) uint8, in the order of time.
    lost: the number of frames that could not be decoded; final when all blocks are read.
    notes: lines about lost frames, and about what a viewer would show differently; complete when all blocks are read.
    """

    fps: float
    height: int
    width: int
    channels: int
    blocks: Iterator[np.ndarray]
    lost: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Orientation:
    """How stored pixels are rotated for display: first rows and columns are swapped, then each axis may be flipped."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Converts (h, w, c) as stored to (h, w, c) as shown."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def shown(self, height: int, width: int) -> tuple[int, int]:
        """Height and width as shown."""
        return (width, height) if self.transpose else (height, width)


def decode_first(frames: Iterator[Frame], why_none: Callable[[], UnreadableVideo]) -> tuple[Frame, Iterator[Frame]]:
    """Decodes the first frame, so that a file without frames fails before its recording is used.

    Returns:
        The first frame, and an iterator over all frames.

    Raises:
        UnreadableVideo: there is no frame; `why_none` makes the error.
    """
    first = next(frames, None)
    if first is None:
        raise why_none()
    return first, chain([first], frames)


def no_frames(path: str | os.PathLike[str], why: str = "") -> UnreadableVideo:
    """The error for a file from which no frame was decoded."""
    return UnreadableVideo(path, why or "there are no frames in it")


def shrink(frames: np.ndarray, size: int) -> np.ndarray:
    """Resizes (n, h, w, c) uint8 to (n, size, size, c).

    Takes the centre square; each new pixel is the mean of the area that it covers.
    """
    height, width = frames.shape[1:3]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = frames[:, top : top + edge, left : left + edge]
    if edge == size:
        return square
    cover = _cover(edge, size)
    rows = np.tensordot(square.astype(np.float32), cover, (1, 1))  # n w c y
    return (np.tensordot(rows, cover, (1, 1)) + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def over_background(rgba: np.ndarray) -> np.ndarray:
    """Blends (h, w, 4) uint8 with the background; returns (h, w, 3)."""
    colour, alpha = rgba[..., :3].astype(np.uint32), rgba[..., 3:].astype(np.uint32)
    return ((colour * alpha + BACKGROUND * (255 - alpha) + 127) // 255).astype(np.uint8)


def too_many_pixels(height: int, width: int) -> str | None:
    """The reason why pictures of this size are not decoded, or None."""
    if height * width <= MOST_PIXELS:
        return None
    return f"a picture of {width} x {height} pixels is too large to decode; the limit is {MOST_PIXELS:,} pixels"


def in_blocks(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Stacks pictures of one shape into blocks of BLOCK pictures."""
    block = []
    for picture in pictures:
        block.append(picture)
        if len(block) == BLOCK:
            yield np.stack(block)
            block.clear()
    if block:
        yield np.stack(block)


def uneven(seconds: np.ndarray, fps: float) -> str | None:
    """A note for times between frames that differ from their median by more than half, or None.

    Args:
        seconds: (n,) from each frame to the next.
    """
    median = np.median(seconds) if seconds.size else 0.0
    if median <= 0 or (np.abs(seconds - median) > median / 2).mean() <= 0.05:
        return None
    shortest, longest = 1000 * seconds.min(), 1000 * seconds.max()
    return (
        f"variable frame rate: its frames are {shortest:.0f} to {longest:.0f} ms apart; "
        f"they are used one after another, {fps:.4g} per second on average"
    )


def _cover(edge: int, size: int) -> np.ndarray:
    """(size, edge): the weight of each old pixel in each new one along one axis; rows sum to 1."""
    ends = np.arange(size + 1) * (edge / size)
    pixel = np.arange(edge)
    overlap = np.minimum(ends[1:, None], pixel + 1) - np.maximum(ends[:-1, None], pixel)
    return (np.maximum(overlap, 0) * (size / edge)).astype(np.float32)
