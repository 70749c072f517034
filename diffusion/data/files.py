"""Finds the video files in a folder and lists every other entry, by name or as a number.  Layouts are built from this.

Folders are searched to any depth, including links to folders.  Pipes, sockets and devices are never opened.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion.data.names import natural, printable

if TYPE_CHECKING:
    from diffusion.data.readers.stored import Stored

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv", ".gif", ".apng"})
ARRAYS = frozenset({".npy", ".npz"})
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
ANIMATED = frozenset({".apng", ".png", ".webp"})  # read as videos if they hold several pictures
READABLE = (
    f"supported are {' '.join(sorted(kind[1:] for kind in VIDEOS | ARRAYS))}, animated png and webp, "
    "and folders of png, jpg, webp, bmp or tif frames"
)
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class VideoFile:
    """One file, or one folder of frames, that holds one or more videos.

    name: its path within the source, with forward slashes, as printable text.
    size_bytes, stamp: change when the contents change.
    """

    path: Path
    name: str
    size_bytes: int
    stamp: int

    @classmethod
    def of(cls, path: Path, name: str, status: os.stat_result) -> VideoFile:
        """A single file, with the size and the time of its `stat`."""
        return cls(path, printable(name), status.st_size, status.st_mtime_ns)

    @property
    def is_array(self) -> bool:
        """Whether this is an npy or npz file."""
        return self.path.suffix.lower() in ARRAYS

    @property
    def stored(self) -> Stored | None:
        """How the file stores its first video; None if it cannot be decoded.  Reads no more than the first frame."""
        from diffusion.data.readers.stored import stored

        return stored(self)


@dataclass
class Listing:
    """The contents of a source.

    files: what can be decoded, in the order of their names.
    problems: one line for each entry that looks like a video and cannot be used: its path and the reason.  These lines
        are part of the fingerprint, so a new wording makes every cache with such an entry stale.
    others: the number of files that are not videos, by file extension; all "hidden" ones together.
    layout: name and description of the layout.
    """

    files: list[VideoFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    layout: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes when a file or a problem is added, removed or changed."""
        lines = [f"{file.name}\t{file.size_bytes}\t{file.stamp}" for file in self.files] + self.problems
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    @property
    def made_of(self) -> dict[str, str]:
        """Size and time of every file, by name."""
        return {file.name: f"{file.size_bytes}/{file.stamp}" for file in self.files}


def walk(source: Path, tops: list[Path]) -> Listing:
    """Finds all videos in the folders `tops`; names are relative to `source`."""
    listing = Listing()
    _Walk(source, listing).below(tops)
    return listing


def images_of(folder: Path) -> list[Path]:
    """The frames of a frame folder, in order."""
    with os.scandir(folder) as entries:
        frames = [folder / entry.name for entry in entries if _is_image(entry.name) and entry.is_file()]
    return sorted(frames, key=lambda path: natural(path.name))


def is_animation(path: Path) -> bool:
    """Whether the header of a png or webp file says that it holds an animation."""
    try:
        with path.open("rb") as file:
            head = file.read(30)
            if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
                return bool(head[20] & 2)
            if head[:8] != _PNG:
                return False
            file.seek(8)
            for _ in range(100):  # a real file has a few chunks before its first picture
                chunk = file.read(8)
                if len(chunk) < 8 or chunk[4:] == b"IDAT":
                    return False
                if chunk[4:] == b"acTL":
                    return True
                file.seek(int.from_bytes(chunk[:4], "big") + 4, os.SEEK_CUR)
    except OSError:
        pass
    return False


def unusable(path: Path, status: os.stat_result | None = None) -> str | None:
    """The reason why a file cannot be opened, or None.  Does not open the file."""
    try:
        mode = (status or path.stat()).st_mode
    except OSError as error:
        return _reason(path, error)
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        return f"{kind} and not a file; it is not opened"
    return None if os.access(path, os.R_OK) else "no permission to read it"


class _Walk:
    """One walk through a source; fills a listing."""

    def __init__(self, source: Path, listing: Listing) -> None:
        self._source, self._listing = source, listing
        self._visited: set[tuple[int, int]] = set()

    def below(self, tops: list[Path]) -> None:
        """Walks through folders, and then through the folders that links in them point to; visits each folder once."""
        links = sorted(self._walk(tops))
        for link in links:  # the loop appends to this list
            if self._may_follow(link):
                links += sorted(self._walk([link]))

    def _may_follow(self, link: Path) -> bool:
        """Whether a link points to a folder that was not visited."""
        if Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link)):
            self._problem(link, "a link to a folder that holds it; it is not followed")
            return False
        if self._identity(link) in self._visited:
            self._problem(link, "a link to a folder that is in the set already; it is not followed")
            return False
        return True

    def _walk(self, tops: list[Path]) -> list[Path]:
        """Lists real folders to any depth; returns the links to folders."""
        waiting, links = list(tops), []
        while waiting:
            folder = waiting.pop()
            try:
                if (identity := self._identity(folder)) in self._visited:
                    self._problem(folder, "this folder is in the set already, by another link")
                    continue
                self._visited.add(identity)
                with os.scandir(folder) as scanned:
                    entries = sorted(scanned, key=lambda entry: entry.name)
            except OSError as error:
                self._problem(folder, _reason(folder, error))
                continue
            files = []
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith("."):
                    self._listing.others["hidden"] += 1
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_symlink() and os.path.isdir(path):
                    links.append(path)
                elif status := self._status(path, entry.is_symlink()):
                    files.append((path, status))
            self._add(folder, files)
        return links

    def _status(self, path: Path, is_link: bool) -> os.stat_result | None:
        """The `stat` of a file that may be a video; counts other files and notes problems."""
        ending = path.suffix.lower()
        wanted = ending in VIDEOS | ARRAYS or _is_image(path.name)
        if not wanted and not (is_link and not path.exists()):
            self._listing.others[printable(ending) or "no extension"] += 1
            return None
        try:
            status = path.stat()
        except OSError as error:
            self._problem(path, _reason(path, error))
            return None
        if problem := unusable(path, status):
            self._problem(path, problem)
            return None
        return status

    def _add(self, folder: Path, files: list[tuple[Path, os.stat_result]]) -> None:
        """Adds the videos among the readable files of one folder to the listing."""
        stems = {path.stem for path, _ in files if path.suffix.lower() in VIDEOS}
        images = [(path, status) for path, status in files if _is_image(path.name)]
        images.sort(key=lambda image: natural(image[0].name))
        animated = bool(images) and is_animation(images[0][0])
        for path, status in files:
            ending = path.suffix.lower()
            # An .npz beside a video of the same name holds its actions, and pictures beside videos belong to them.
            if ending in VIDEOS | ARRAYS:
                usable = ending != ".npz" or path.stem not in stems
            else:
                usable = animated
            if usable:
                self._listing.files.append(VideoFile.of(path, self._name(path), status))
            elif ending in ARRAYS or stems:
                self._listing.others[ending] += 1
        if images and not animated and not stems:
            lines = "\n".join(f"{printable(path.name)}\t{s.st_size}\t{s.st_mtime_ns}" for path, s in images)
            stamp = int.from_bytes(hashlib.blake2b(lines.encode(), digest_size=6).digest(), "big")
            num_bytes = sum(status.st_size for _, status in images)
            self._listing.files.append(VideoFile(folder, self._name(folder), num_bytes, stamp))

    def _name(self, path: Path) -> str:
        return printable(path.relative_to(self._source).as_posix() if path != self._source else path.name)

    def _problem(self, path: Path, reason: str) -> None:
        self._listing.problems.append(f"{printable(path)}: {reason}")

    @staticmethod
    def _identity(folder: Path) -> tuple[int, int]:
        status = folder.stat()
        return status.st_dev, status.st_ino


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGES and not name.startswith(".")


def _reason(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "a link to nothing" if path.is_symlink() else "it is gone"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    return error.strerror or str(error)
