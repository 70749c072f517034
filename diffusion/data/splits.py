"""Divides the videos of a source into a training and a test split."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from diffusion.data.config import Split


def has_splits(names: Collection[str]) -> bool:
    """Whether the names of all videos begin with train/ or test/, and both occur."""
    return {name.partition("/")[0] for name in names} == {"train", "test"}


def select(names: Sequence[str], split: Split, test_share: float) -> list[int]:
    """The indices of the videos that belong to a split.

    Names that begin with train/ and test/ decide.  Otherwise a hash of the name decides, so that a video keeps its
    split when videos are added.  If this leaves a split empty, the split gets the video whose hash is nearest to it; a
    single video belongs to both splits.
    """
    everything = range(len(names))
    if split == "all" or not names:
        return list(everything)
    if has_splits(names):
        return [video for video in everything if names[video].startswith(f"{split}/")]
    if test_share == 0:
        return list(everything) if split == "train" else []
    hashes = [_unit_hash(name) for name in names]
    test = [video for video in everything if hashes[video] < test_share] or [hashes.index(min(hashes))]
    train = [video for video in everything if video not in set(test)] or [hashes.index(max(hashes))]
    return train if split == "train" else test


def _unit_hash(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "big") / 2**48
