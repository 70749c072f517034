"""What every reader returns: a `Recording`, with blocks of frames of the requested size.

Letters: n frames, c channels.
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
BLOCK = 64

Frame = TypeVar("Frame")


class UnreadableVideo(DataError):
    """One file cannot be decoded; others may be.  The message is its path and the reason, on one line."""

    def __init__(self, path: str | os.PathLike[str], reason: object) -> None:
        super().__init__(f"{printable(path)}: {printable(str(reason))}")


@dataclass
class Recording:
    """One video while it is being decoded.

    height, width, channels: as a viewer shows the video, before it is cropped and resized.
    blocks: (n, size, size, c) uint8, in the order of time.
    fps: frames per second.  Final when all blocks are read, because only then all time stamps are known.
    lost: the number of frames that could not be decoded; final when all blocks are read.
    notes: lines about lost frames, and about what a viewer would show differently; complete when all blocks are read.
    """

    height: int
    width: int
    channels: int
    blocks: Iterator[np.ndarray]
    fps: float = UNKNOWN_FPS
    lost: int = 0
    notes: list[str] = field(default_factory=list)


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
