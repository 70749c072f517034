"""What a source holds: its video files and frame folders, and which split each video belongs to."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion.data import BUILTINS, DataError
from diffusion.data.config import Split
from temporal_zoo.config import nearest

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv", ".gif"})
ARRAYS = frozenset({".npy", ".npz"})
IMAGES = frozenset({".png", ".jpg", ".jpeg"})


@dataclass(frozen=True)
class Item:
    """One file, or one folder of frames, that holds one or more videos.

    name: its path within the source, with forward slashes.
    size_bytes, stamp: change when the contents do.
    """

    path: Path
    name: str
    size_bytes: int
    stamp: int


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
    return Path(__file__).parent / "doom_mazes" if name == "doom" else Path(source).expanduser()


def find_items(source: Path) -> list[Item]:
    """All items of a source, in the order of their names; train and test folders, if both exist, hide what is beside.

    Raises: DataError when there is no such path or nothing in it is video.
    """
    if not source.exists():
        raise DataError(f"no file or folder {source}; built-in videos are written builtin:mazes and builtin:doom")
    if source.is_file():
        if source.suffix.lower() not in VIDEOS | ARRAYS:
            raise DataError(f"{source} is not a video that can be read; {_readable()}")
        return [_file(source, source.name)]
    tops = [source / "train", source / "test"]
    found = [item for top in (tops if all(t.is_dir() for t in tops) else [source]) for item in _walk(top, source)]
    if not found:
        raise DataError(f"{source} holds no videos; {_readable()}")
    return sorted(found, key=lambda item: natural(item.name))


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which frame2 comes before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def images_of(folder: Path) -> list[Path]:
    """The frames of a frame folder, in order."""
    frames = (path for path in folder.iterdir() if path.suffix.lower() in IMAGES and not path.name.startswith("."))
    return sorted(frames, key=lambda path: natural(path.name))


def fingerprint(items: Iterable[Item]) -> str:
    """Changes when an item is added, removed or changed."""
    text = "\n".join(f"{item.name}\t{item.size_bytes}\t{item.stamp}" for item in items)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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


def _walk(top: Path, source: Path) -> Iterator[Item]:
    for folder, subfolders, files in os.walk(top):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        here = Path(folder)
        paths = [here / name for name in files if not name.startswith(".")]
        stems = {path.stem for path in paths if path.suffix.lower() in VIDEOS}
        for path in paths:
            kind = path.suffix.lower()
            # An .npz beside a video of the same name holds its actions.
            if kind in VIDEOS or kind == ".npy" or (kind == ".npz" and path.stem not in stems):
                yield _file(path, path.relative_to(source).as_posix())
        if not stems and (images := images_of(here)):
            facts = [image.stat() for image in images]
            name = here.relative_to(source).as_posix() if here != source else here.name
            yield Item(here, name, sum(f.st_size for f in facts), max(f.st_mtime_ns for f in facts) + len(facts))


def _file(path: Path, name: str) -> Item:
    facts = path.stat()
    return Item(path, name, facts.st_size, facts.st_mtime_ns)


def _readable() -> str:
    kinds = " ".join(sorted(kind[1:] for kind in VIDEOS | ARRAYS))
    return f"readable are {kinds}, and folders of png or jpg frames"
