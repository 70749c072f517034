"""Sources of videos: files (also those of a built cache), and videos that are rendered from the configuration."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Protocol

from diffusion.data.build import is_cache, read_index, read_meta
from diffusion.data.builtin import builtin, files_of
from diffusion.data.cache import cached_videos
from diffusion.data.config import DataConfig, Split
from diffusion.data.files import VideoFile
from diffusion.data.layouts import search
from diffusion.data.maze_videos import MazeVideos
from diffusion.data.splits import has_splits
from diffusion.data.videos import Videos


class Source(Protocol):
    """Videos that `--data` names.

    rendered: whether videos are rendered from the configuration and have no files.
    decoded_size: height and width in pixels of videos that are already decoded (a built cache); otherwise None.
    files: the files of the videos; empty if videos are rendered, or if the files of a built cache are gone.
    has_splits: whether the source itself says which videos are for training and which for testing.
    """

    rendered: bool

    @property
    def decoded_size(self) -> int | None: ...

    @property
    def files(self) -> list[VideoFile]: ...

    @property
    def has_splits(self) -> bool: ...

    def videos(self, config: DataConfig, split: Split, *, without: Collection[str] = ()) -> Videos:
        """Opens the videos of one split.

        Args:
            without: names of files whose videos are left out.

        Raises:
            DataError: the files are missing, or none of them can be decoded.
        """
        ...


def open_source(text: str) -> Source:
    """See `diffusion.data.open_source`."""
    return RenderedMazes() if builtin(text) == "mazes" else FileSource(files_of(text))


def open_videos(config: DataConfig, split: Split, *, without: Collection[str] = ()) -> Videos:
    """The videos of one split of `config.source`; see `Source.videos`."""
    return open_source(config.source).videos(config, split, without=without)


class RenderedMazes:
    """The source "builtin:mazes"."""

    rendered = True
    decoded_size = None
    has_splits = True

    def __init__(self) -> None:
        self.files: list[VideoFile] = []

    def videos(self, config: DataConfig, split: Split, *, without: Collection[str] = ()) -> Videos:
        """See `Source`."""
        return MazeVideos.of(config, split)


class FileSource:
    """Videos in files, which are decoded into a cache, or a cache that the user built."""

    rendered = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._meta = read_meta(path) if is_cache(path) else None

    @property
    def decoded_size(self) -> int | None:
        """See `Source`."""
        return None if self._meta is None else self._meta["size"]

    @cached_property
    def files(self) -> list[VideoFile]:
        """See `Source`."""
        if self._meta is None:
            return search(self._path).files
        original = Path(self._meta["source"])
        return search(original).files if original.exists() else []

    @property
    def has_splits(self) -> bool:
        """See `Source`."""
        in_cache = [] if self._meta is None else [video.name for video in read_index(self._path)[1]]
        return has_splits(in_cache or [file.name for file in self.files])

    def videos(self, config: DataConfig, split: Split, *, without: Collection[str] = ()) -> Videos:
        """See `Source`."""
        return cached_videos(self._path, config, split, without=without)
