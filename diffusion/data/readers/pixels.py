"""Pixels of frames: orientation, the centre square, area averaging, transparency.

Letters: n frames, h height, w width, c channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BACKGROUND = 255  # white, as on a web page; shows through transparent pixels
MOST_PIXELS = 8192 * 8192  # of one picture; a header may declare far more than fits in memory


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

    def square(self, picture: np.ndarray, size: int) -> np.ndarray:
        """Converts (h, w, c) as stored to (size, size, c) as shown."""
        return self.apply(centre_square(picture[None], size)[0])

    def shown(self, height: int, width: int) -> tuple[int, int]:
        """Height and width as shown."""
        return (width, height) if self.transpose else (height, width)


def centre_square(frames: np.ndarray, size: int) -> np.ndarray:
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


def _cover(edge: int, size: int) -> np.ndarray:
    """(size, edge): the weight of each old pixel in each new one along one axis; rows sum to 1."""
    ends = np.arange(size + 1) * (edge / size)
    pixel = np.arange(edge)
    overlap = np.minimum(ends[1:, None], pixel + 1) - np.maximum(ends[:-1, None], pixel)
    return (np.maximum(overlap, 0) * (size / edge)).astype(np.float32)
