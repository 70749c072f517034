"""Decoded videos: their interface, how their raw frames are read from a file, and a warning for different rates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from diffusion.data import DataError

_RATES_SHOWN = 3  # in a warning


class Videos(Protocol):
    """Decoded videos of one size, read by slices of time.

    channels, size: of every frame; size is height and width in pixels.
    names, lengths, rates: of each video: its name, its number of frames, its frames per second.
    fps: the median of rates.
    contents: a digest of each video's frames, by name; empty for videos that are rendered from the configuration.
    """

    channels: int
    size: int
    fps: float
    rates: list[float]
    names: list[str]
    lengths: list[int]

    @property
    def contents(self) -> dict[str, str]: ...

    def read(self, video: int, frames: slice) -> np.ndarray:
        """Reads frames of one video, (frames, height, width, channels) uint8, and no other frames."""
        ...


def read_frames(path: Path, frames: slice, *, length: int, size: int, channels: int, first: int = 0) -> np.ndarray:
    """Reads frames of a video from a file of raw frames; reads only the bytes that span them.

    Args:
        frames: which frames of the video.
        length: number of frames of the video.
        first: index in the file of the video's first frame.

    Returns:
        (frames, size, size, channels) uint8.

    Raises:
        DataError: the file is missing or too short.
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


def several_rates(rates: Iterable[float]) -> str | None:
    """A warning for videos whose frames per second differ by more than 2 %, or None."""
    counts: dict[str, int] = {}
    rates = sorted(rates)
    if not rates or rates[-1] <= 1.02 * rates[0]:
        return None
    for rate in rates:
        counts[f"{rate:.4g}"] = counts.get(f"{rate:.4g}", 0) + 1
    most = sorted(counts, key=lambda rate: -counts[rate])
    listed = ", ".join(f"{rate} in {counts[rate]}" for rate in most[:_RATES_SHOWN])
    more = f" and {len(most) - _RATES_SHOWN} more" if len(most) > _RATES_SHOWN else ""
    return (
        f"several frame rates: {listed}{more} of {len(rates)} videos; data.stride counts frames, so clips of "
        "these videos span different times; to avoid this, convert the videos to one rate"
    )
