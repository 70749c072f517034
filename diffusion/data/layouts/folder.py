"""A folder of videos, searched to any depth; a hash of each video's name decides its split."""

from __future__ import annotations

from pathlib import Path

from diffusion.data.files import Listing, walk


def matches(path: Path) -> bool:
    """Whether `path` is a folder."""
    return path.is_dir()


def search(path: Path) -> Listing:
    """Finds all videos in the folder."""
    return walk(path, [path])
