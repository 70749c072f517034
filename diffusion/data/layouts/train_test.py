"""A folder with the folders train and test, which are the splits; what else it holds is ignored."""

from __future__ import annotations

from pathlib import Path

from diffusion.data.files import Listing, walk

SPLITS = ("train", "test")


def matches(path: Path) -> bool:
    """Whether `path` has both folders."""
    return all((path / split).is_dir() for split in SPLITS)


def search(path: Path) -> Listing:
    """Finds all videos in the two folders."""
    return walk(path, [path / split for split in SPLITS])
