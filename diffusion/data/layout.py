"""The files of a source by its name, and which split each of its videos belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from diffusion.data import BUILTINS, DataError
from diffusion.data.config import Split
from diffusion.data.search import Item, search
from temporal_zoo.config import nearest

__all__ = ["Item", "builtin", "find_items", "locate", "select"]


def builtin(source: str) -> str | None:
    """The name of a built-in source ("mazes" of "builtin:mazes"), None for a path.  Raises: DataError when unknown."""
    kind, colon, name = source.partition(":")
    if kind != "builtin" or not colon:
        return None
    if name not in BUILTINS:
        raise DataError(f"no built-in videos {name!r}{nearest(name, BUILTINS)}; there are {', '.join(BUILTINS)}")
    return name


def locate(source: str) -> Path:
    """The files of a source.  Raises: DataError for an unknown built-in one, and for one without files."""
    name = builtin(source)
    if name == "mazes":
        raise DataError(f"{source} has no files, it is rendered; look at it with: zoo data preview {source}")
    if name == "doom":
        return Path(__file__).parent / "doom_mazes"
    try:
        return Path(source).expanduser()
    except RuntimeError as error:
        raise DataError(f"{source}: {error}; write the whole path") from error


def find_items(source: Path) -> list[Item]:
    """All items of a source, in the order of their names; what else is there tells `search`.

    Raises: DataError when there is no such path or nothing in it is video.
    """
    return search(source).items


def select(names: Sequence[str], split: Split, test_share: float) -> list[int]:
    """Which videos belong to a split.

    Names under train/ and test/ say so themselves.  Otherwise a hash of the name decides, so that a video stays where
    it is when others are added; when that leaves a split without any video it gets the one nearest to it, and a single
    video serves as both.
    """
    everything = range(len(names))
    if split == "all" or not names:
        return list(everything)
    if {name.partition("/")[0] for name in names} == {"train", "test"}:
        return [video for video in everything if names[video].startswith(f"{split}/")]
    if test_share == 0:
        return list(everything) if split == "train" else []
    places = [_place(name) for name in names]
    test = [video for video in everything if places[video] < test_share] or [places.index(min(places))]
    train = [video for video in everything if video not in set(test)] or [places.index(max(places))]
    return train if split == "train" else test


def _place(name: str) -> float:
    """A number in [0, 1) that depends on nothing but the name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "big") / 2**48
