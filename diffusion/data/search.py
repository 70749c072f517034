"""What a source holds: the items that can be decoded, and every other entry, by name or as a number.

Folders are searched to any depth, links to folders included.  Pipes, sockets and devices are never opened.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from diffusion.data import DataError
from diffusion.data.names import natural, printable

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv", ".gif", ".apng"})
ARRAYS = frozenset({".npy", ".npz"})
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
ANIMATED = frozenset({".apng", ".png", ".webp"})  # read as videos where they hold several pictures
_PNG = b"\x89PNG\r\n\x1a\n"
_READABLE = (
    f"readable are {' '.join(sorted(kind[1:] for kind in VIDEOS | ARRAYS))}, animated png and webp, "
    "and folders of png, jpg, webp, bmp or tif frames"
)


@dataclass(frozen=True)
class Item:
    """One file, or one folder of frames, that holds one or more videos.

    name: its path within the source, with forward slashes, as printable text.
    size_bytes, stamp: change when the contents do.
    """

    path: Path
    name: str
    size_bytes: int
    stamp: int


@dataclass
class Listing:
    """What a source holds.

    items: what can be decoded, in the order of their names.
    problems: a line for each entry that ought to be used and cannot: its path and the reason.
    others: how many files are no videos, by their ending; "hidden" ones together.
    """

    items: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    @property
    def fingerprint(self) -> str:
        """Changes when an item or a problem is added, removed or changed."""
        lines = [f"{item.name}\t{item.size_bytes}\t{item.stamp}" for item in self.items] + self.problems
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    @property
    def made_of(self) -> dict[str, str]:
        """Size and time of every item, by name."""
        return {item.name: f"{item.size_bytes}/{item.stamp}" for item in self.items}


def search(source: Path) -> Listing:
    """Everything in a source; train and test folders, if both exist, hide what is beside.

    Raises: DataError when there is no such path or nothing in it is video; it names the first problems.
    """
    shown = printable(source)
    if not source.exists():
        raise DataError(f"no file or folder {shown}; built-in videos are written builtin:mazes and builtin:doom")
    found = Listing()
    if source.is_dir():
        tops = [source / "train", source / "test"]
        _Search(source, found).below(tops if all(top.is_dir() for top in tops) else [source])
    elif problem := unusable(source):
        raise DataError(f"{shown} is not a video that can be read: {problem}")
    elif source.suffix.lower() in VIDEOS | ARRAYS or is_animation(source):
        found.items.append(_item(source, source.name, source.stat()))
    else:
        raise DataError(f"{shown} is not a video that can be read; {_READABLE}")
    if not found.items:
        first = "".join(f"; {problem}" for problem in found.problems[:3])
        raise DataError(f"{shown} holds no videos; {_READABLE}{first}")
    found.items.sort(key=lambda item: natural(item.name))
    found.problems.sort(key=natural)
    return found


def images_of(folder: Path) -> list[Path]:
    """The frames of a frame folder, in order."""
    with os.scandir(folder) as entries:
        frames = [folder / entry.name for entry in entries if _is_image(entry.name) and entry.is_file()]
    return sorted(frames, key=lambda path: natural(path.name))


def is_animation(path: Path) -> bool:
    """Whether a png or webp file says that it holds several pictures to be shown one after another."""
    try:
        with path.open("rb") as file:
            head = file.read(30)
            if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
                return bool(head[20] & 2)
            if head[:8] != _PNG:
                return False
            file.seek(8)
            for _ in range(100):  # chunks before the first picture, a few in a real file
                chunk = file.read(8)
                if len(chunk) < 8 or chunk[4:] == b"IDAT":
                    return False
                if chunk[4:] == b"acTL":
                    return True
                file.seek(int.from_bytes(chunk[:4], "big") + 4, os.SEEK_CUR)
    except OSError:
        pass
    return False


def unusable(path: Path, facts: os.stat_result | None = None) -> str | None:
    """Why a file cannot be opened, found out without opening it; None when it can."""
    try:
        mode = (facts or path.stat()).st_mode
    except OSError as error:
        return _reason(path, error)
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        return f"{kind} and not a file; it is not opened"
    return None if os.access(path, os.R_OK) else "no permission to read it"


class _Search:
    """One walk through a source; fills a listing."""

    def __init__(self, source: Path, found: Listing) -> None:
        self._source, self._found = source, found
        self._seen: set[tuple[int, int]] = set()

    def below(self, tops: list[Path]) -> None:
        """Walks through folders, and then through the folders that links in them lead to, each of them once."""
        links = sorted(self._walk(tops))
        for link in links:  # which grows
            if self._may_follow(link):
                links += sorted(self._walk([link]))

    def _may_follow(self, link: Path) -> bool:
        """Whether a link leads to a folder that is not in the set already."""
        if Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link)):
            self._problem(link, "a link to a folder that holds it; it is not followed")
            return False
        if self._identity(link) in self._seen:
            self._problem(link, "a link to a folder that is in the set already; it is not followed")
            return False
        return True

    def _walk(self, tops: list[Path]) -> list[Path]:
        """Lists real folders to any depth; returns the links to folders."""
        waiting, links = list(tops), []
        while waiting:
            folder = waiting.pop()
            try:
                if (identity := self._identity(folder)) in self._seen:
                    self._problem(folder, "this folder is in the set already, by another link")
                    continue
                self._seen.add(identity)
                with os.scandir(folder) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except OSError as error:
                self._problem(folder, _reason(folder, error))
                continue
            files = []
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith("."):
                    self._found.others["hidden"] += 1
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_symlink() and os.path.isdir(path):
                    links.append(path)
                elif facts := self._facts(path, entry.is_symlink()):
                    files.append((path, facts))
            self._add(folder, files)
        return links

    def _facts(self, path: Path, is_link: bool) -> os.stat_result | None:
        """What is known of a file that may be used; of any other it is noted why not."""
        ending = path.suffix.lower()
        wanted = ending in VIDEOS | ARRAYS or _is_image(path.name)
        if not wanted and not (is_link and not path.exists()):
            self._found.others[printable(ending) or "no ending"] += 1
            return None
        try:
            facts = path.stat()
        except OSError as error:
            self._problem(path, _reason(path, error))
            return None
        if problem := unusable(path, facts):
            self._problem(path, problem)
            return None
        return facts

    def _add(self, folder: Path, files: list[tuple[Path, os.stat_result]]) -> None:
        """Makes items of the usable files of one folder."""
        stems = {path.stem for path, _ in files if path.suffix.lower() in VIDEOS}
        images = [(path, facts) for path, facts in files if _is_image(path.name)]
        images.sort(key=lambda image: natural(image[0].name))
        animated = bool(images) and is_animation(images[0][0])
        for path, facts in files:
            ending = path.suffix.lower()
            # An .npz beside a video of the same name holds its actions, and pictures beside videos belong to them.
            if ending in VIDEOS | ARRAYS:
                usable = ending != ".npz" or path.stem not in stems
            else:
                usable = animated
            if usable:
                self._found.items.append(_item(path, self._name(path), facts))
            elif ending in ARRAYS or stems:
                self._found.others[ending] += 1
        if images and not animated and not stems:
            lines = "\n".join(f"{printable(path.name)}\t{f.st_size}\t{f.st_mtime_ns}" for path, f in images)
            stamp = int.from_bytes(hashlib.blake2b(lines.encode(), digest_size=6).digest(), "big")
            self._found.items.append(Item(folder, self._name(folder), sum(f.st_size for _, f in images), stamp))

    def _name(self, path: Path) -> str:
        return printable(path.relative_to(self._source).as_posix() if path != self._source else path.name)

    def _problem(self, path: Path, reason: str) -> None:
        self._found.problems.append(f"{printable(path)}: {reason}")

    @staticmethod
    def _identity(folder: Path) -> tuple[int, int]:
        facts = folder.stat()
        return facts.st_dev, facts.st_ino


def _item(path: Path, name: str, facts: os.stat_result) -> Item:
    return Item(path, printable(name), facts.st_size, facts.st_mtime_ns)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGES and not name.startswith(".")


def _reason(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "a link to nothing" if path.is_symlink() else "it is gone"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    return error.strerror or str(error)
