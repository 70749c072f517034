"""Where clips come from: `open_clips(DataConfig(source="videos/"), split="train").draw(number, seed)`.

Importing this package imports no torch, so that configurations and `--help` stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion.data.config import DataConfig, Split
from temporal_zoo.errors import InvalidInput

if TYPE_CHECKING:
    from diffusion.data.source import ClipSource

__all__ = ["BUILTINS", "DataConfig", "DataError", "open_clips"]

BUILTINS = {
    "mazes": "procedural first-person mazes, rendered here; any number, no file needed",
    "doom": "20 recorded walks through Doom-like mazes, 300 frames each; needs PyAV",
}


class DataError(InvalidInput):
    """Videos that cannot be used as asked; the message says why and what to do."""


def open_clips(config: DataConfig, *, split: Split) -> ClipSource:
    """The clips of one split of the configured source.

    Files are decoded once into a cache, which may take a while the first time.

    Raises: DataError when the source is missing, empty, unreadable, or has no video long enough.
    """
    from diffusion.data.source import ClipSource, open_videos

    return ClipSource(open_videos(config, split), config, split=split)
