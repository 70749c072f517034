"""Cuts clips from videos: `open_clips(DataConfig(source="videos/"), split="train").draw(number, seed)`.

A `source` (a path or a built-in name) has video files, which a layout in `layouts` finds.  `readers` decode them,
`build` writes the frames into a cache, `cache` opens it as `videos` of one split, and `clips` cuts clips from these.
The videos of builtin:mazes are rendered (`maze_videos`, `mazes`, `raycast`) and not decoded.

Other packages import names of this file, and `diffusion.data.clips.ClipSource`.  Importing this package does not import
torch, so that configurations and `--help` stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion.data.changes import Changes
from diffusion.data.config import DataConfig, Split
from diffusion.data.files import VideoFile
from temporal_zoo.errors import InvalidInput

if TYPE_CHECKING:
    from diffusion.data.clips import ClipSource
    from diffusion.data.source import Source

__all__ = ["Changes", "DataConfig", "DataError", "Split", "VideoFile", "open_clips", "open_source"]


class DataError(InvalidInput):
    """Videos cannot be used as requested.  The message gives the reason and what to do."""


def open_clips(config: DataConfig, *, split: Split) -> ClipSource:
    """Opens the clips of one split of the configured source.

    Files are decoded once into a cache, which may take a while the first time.

    Raises:
        DataError: the source is missing, empty or unreadable, or has no video that is long enough.
    """
    from diffusion.data.clips import ClipSource
    from diffusion.data.source import open_videos

    return ClipSource(open_videos(config, split), config, split=split)


def open_source(text: str) -> Source:
    """Opens the source that a text names: a path, or a built-in source such as "builtin:mazes".

    Raises:
        DataError: there is no such built-in source.
    """
    from diffusion.data.source import open_source

    return open_source(text)
