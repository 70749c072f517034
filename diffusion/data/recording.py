"""What every reader gives: a `Recording`, cut to the square in its centre and averaged over areas.

Letters: n frames, h height, w width, c channels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from diffusion.data import DataError
from diffusion.data.names import printable

UNKNOWN_FPS = 12.0  # of arrays and frame folders, which do not say
BACKGROUND = 255  # what is seen through transparent pixels: white, as on a web page
MOST_PIXELS = 8192 * 8192  # of one picture; a header may declare far more than memory holds
BLOCK = 64


class UnreadableVideo(DataError):
    """One item that cannot be decoded; others may.  The message is its path and the reason, on one line."""

    def __init__(self, path: str | os.PathLike[str], reason: object) -> None:
        super().__init__(f"{printable(path)}: {printable(str(reason))}")


@dataclass
class Recording:
    """One video while it is being decoded.

    fps: frames per second; final when all blocks are read, because only then all time stamps are known.
    height, width, channels: as a viewer shows the video, before it is cut and shrunk.
    blocks: (n, size, size, c) uint8, in the order of time.
    lost: how many frames could not be decoded; final when all blocks are read.
    notes: what was lost, and what a viewer would show in another way; complete when all blocks are read.
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
    """How stored pixels are turned for showing: first rows and columns change places, then each axis may flip."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """(h, w, c) as stored to (h, w, c) as shown."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def shown(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after turning."""
        return (width, height) if self.transpose else (height, width)


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


def over_background(rgba: np.ndarray) -> np.ndarray:
    """(h, w, 4) uint8 to (h, w, 3): what is seen of the colours, and of the background through them."""
    colour, alpha = rgba[..., :3].astype(np.uint32), rgba[..., 3:].astype(np.uint32)
    return ((colour * alpha + BACKGROUND * (255 - alpha) + 127) // 255).astype(np.uint8)


def too_many_pixels(height: int, width: int) -> str | None:
    """Why pictures of this size are not decoded; None when they are."""
    if height * width <= MOST_PIXELS:
        return None
    return f"a picture of {width} x {height} pixels is too large to decode, at most {MOST_PIXELS:,} pixels are read"


def in_blocks(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures of one shape, stacked by BLOCK of them."""
    block = []
    for picture in pictures:
        block.append(picture)
        if len(block) == BLOCK:
            yield np.stack(block)
            block.clear()
    if block:
        yield np.stack(block)


def uneven(seconds: np.ndarray, fps: float) -> str | None:
    """What to note when the times between frames differ by more than half of the usual, None when they do not.

    seconds: (n,) from each frame to the next.
    """
    usual = np.median(seconds) if seconds.size else 0.0
    if usual <= 0 or (np.abs(seconds - usual) > usual / 2).mean() <= 0.05:
        return None
    shortest, longest = 1000 * seconds.min(), 1000 * seconds.max()
    return (
        f"variable frame rate: its frames are {shortest:.0f} to {longest:.0f} ms apart; "
        f"they are used one after another, {fps:.4g} a second on average"
    )


def _cover(edge: int, size: int) -> np.ndarray:
    """(size, edge) share of each old pixel in each new one along one axis; rows sum to 1."""
    ends = np.arange(size + 1) * (edge / size)
    pixel = np.arange(edge)
    overlap = np.minimum(ends[1:, None], pixel + 1) - np.maximum(ends[:-1, None], pixel)
    return (np.maximum(overlap, 0) * (size / edge)).astype(np.float32)
