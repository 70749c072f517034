"""Building a cache of decoded videos: every item is decoded once, at the size of training.

A cache is a folder: `videos/<digest>.u8` holds the frames of one item (frames, size, size, channels) uint8 without a
header, `videos/<digest>.json` what is in it or why it could not be read, `index.json` lists all videos and the items
that they were made of, and `meta.json` is written last.  Digests name an item's path and state, so that a build which
was interrupted, or whose source has changed, decodes only what is missing.  `bad_files.txt` has a line for each entry
that was left out, lost frames, or looks otherwise in a viewer.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.data import DataError
from diffusion.data.names import printable
from diffusion.data.readers import Recording, UnreadableVideo, recordings
from diffusion.data.search import Item, Listing, search
from diffusion.data.storage import size_of
from temporal_zoo._support.files import read_json, write_json, written_whole
from temporal_zoo.errors import InvalidInput

KIND = "temporal_zoo videos"
# Bump it whenever the same files would be stored otherwise: the centre square by areas, uint8, frames first.
# 1 took pictures as they are stored; 2 takes them as a viewer shows them, and knows the digests of decoded frames.
FORMAT = 2
_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """One decoded video: `frames` frames of its shard from `start` on; `digest` is of its decoded frames."""

    name: str
    shard: str
    start: int
    frames: int
    channels: int
    fps: float
    digest: str = ""


@dataclass(frozen=True)
class Built:
    """One step of a build: the entry just done, why it is left out if it is, and how far the build has come.

    notes: a line for each thing that was lost, or that a viewer would show in another way.
    """

    name: str
    frames: int
    bad: str | None
    notes: list[str]
    done: int
    total: int


def build(source: Path, folder: Path, *, size: int, strict: bool = False) -> Iterator[Built]:
    """Decodes a source into a cache, item by item; items that are there already are kept.

    Entries that cannot be used are left out and listed in bad_files.txt; `strict` makes the first one, and the first
    lost frame, an error.

    Raises: DataError when nothing can be decoded, or the disk is too small.
    """
    _check_folder(folder, source)
    found = search(source)
    total = len(found.items)
    for problem in found.problems:
        if strict:
            raise DataError(f"{problem}; without strict it would be left out")
        yield Built(problem.partition(": ")[0], 0, problem, [], 0, total)
    shards = _make_folder(folder / "videos")
    bytes_left = sum(item.size_bytes for item in found.items)
    bytes_read = bytes_written = 0
    records = []
    for done, item in enumerate(found.items, 1):
        digest = _digest(item, size)
        record = _finished(shards, digest)
        if record is None or (record["bad"] and strict):
            _check_space(folder, bytes_written / max(bytes_read, 1) * bytes_left)
            record = _decode(item, shards, digest, size)
            bytes_read += item.size_bytes
            bytes_written += record["bytes"]
        if strict and record["bad"]:
            raise DataError(f"{record['bad']}; without strict it would be left out")
        if strict and record["lost"]:
            raise DataError(f"{record['notes'][0]}; without strict the rest would be kept")
        bytes_left -= item.size_bytes
        records.append(record)
        frames = sum(entry["frames"] for entry in record["videos"])
        yield Built(item.name, frames, record["bad"], record["notes"], done, total)
    _finish(source, folder, found, records, size)


def is_cache(folder: Path) -> bool:
    """Whether a folder is a cache that was built to the end."""
    try:
        return (folder / "meta.json").is_file() and read_meta(folder).get("kind") == KIND
    except (OSError, InvalidInput):
        return False


def read_meta(folder: Path) -> dict[str, Any]:
    """What a cache was made of."""
    return read_json(folder / "meta.json", _remedy(folder))


def read_index(folder: Path) -> tuple[dict[str, Any], list[Entry]]:
    """What a cache was made of, and its videos in the order of their names."""
    videos = read_json(folder / "index.json", _remedy(folder))["videos"]
    return read_meta(folder), [Entry(**entry) for entry in videos]


def _remedy(folder: Path) -> str:
    return f"delete {folder} and build it again"


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write in {folder} ({error.strerror}); choose another folder, or set ZOO_CACHE"
        ) from error
    return folder


def _decode(item: Item, shards: Path, digest: str, size: int) -> dict[str, Any]:
    """Decodes one item into its shard and notes what is in it; the note is written last."""
    videos: list[dict[str, Any]] = []
    frames, lost, bad = 0, 0, None
    notes: list[str] = []
    try:
        with written_whole(shards / f"{digest}.u8") as file:
            for number, recording in enumerate(recordings(item.path, size)):
                start = frames
                written, of_frames = _write(recording, file)
                frames, lost = frames + written, lost + recording.lost
                name = item.name if number == 0 else f"{item.name}#{number}"
                entry = Entry(name, f"{digest}.u8", start, written, recording.channels, recording.fps, digest=of_frames)
                videos.append(asdict(entry))
                notes += [f"{printable(item.path)}: {note}" for note in recording.notes]
            if frames == 0:
                raise UnreadableVideo(item.path, "there are no frames in it")
    except UnreadableVideo as error:
        videos, notes, lost, bad = [], [], 0, str(error)
    size_bytes = sum(v["frames"] * size**2 * v["channels"] for v in videos)
    record = {"videos": videos, "bad": bad, "notes": notes, "lost": lost, "bytes": size_bytes}
    write_json(shards / f"{digest}.json", record)
    return record


def _write(recording: Recording, file: Any) -> tuple[int, str]:
    """Writes all frames of a video; returns how many there are, and a digest of them."""
    frames, digest = 0, hashlib.blake2b(digest_size=8)
    for block in recording.blocks:
        pixels = np.ascontiguousarray(block).data
        file.write(pixels)
        digest.update(pixels)
        frames += len(block)
    return frames, digest.hexdigest()


def _finish(source: Path, folder: Path, found: Listing, records: list[dict], size: int) -> None:
    """Writes the index and, last of all, meta.json; then removes the shards of items that are gone."""
    bad = found.problems + [record["bad"] for record in records if record["bad"]]
    notes = [note for record in records for note in record["notes"]]
    videos = [video for record in records for video in record["videos"]]
    bad_files = folder / "bad_files.txt"
    if bad or notes:
        with written_whole(bad_files) as file:
            file.write("".join(f"{line}\n" for line in bad + notes).encode())
    else:
        bad_files.unlink(missing_ok=True)
    if not videos:
        first = "; ".join(bad[:3])
        raise DataError(
            f"none of the {len(found.items)} videos of {printable(source)} can be decoded; the first: {first}"
        )
    write_json(folder / "index.json", {"videos": videos, "made_of": found.made_of, "bad": bad, "notes": notes})
    meta = {"kind": KIND, "format": FORMAT, "size": size, "source": str(source.resolve())}
    meta |= {"fingerprint": found.fingerprint, "num_videos": len(videos), "others": dict(found.others)}
    write_json(folder / "meta.json", meta)
    _sweep(folder / "videos", {_digest(item, size) for item in found.items})


def _sweep(shards: Path, wanted: set[str]) -> None:
    """Removes shards that no item needs, and what builds that were killed more than a day ago left behind."""
    for path in shards.iterdir():
        abandoned = path.suffix == ".part" and time.time() - path.stat().st_mtime > 86_400
        if abandoned or (path.suffix in (".u8", ".json") and path.stem not in wanted):
            with contextlib.suppress(OSError):  # in use, on systems that mind
                path.unlink()


def _digest(item: Item, size: int) -> str:
    text = f"{FORMAT}/{size}/{item.name}/{item.size_bytes}/{item.stamp}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _finished(shards: Path, digest: str) -> dict[str, Any] | None:
    """The note of an item that has been decoded, or found bad; None when that remains to be done."""
    try:
        record = read_json(shards / f"{digest}.json", "")
        whole = record["bad"] or size_of(shards / f"{digest}.u8") == record["bytes"]
    except (OSError, InvalidInput):
        return None
    return record if whole else None


def _check_folder(folder: Path, source: Path) -> None:
    """Refuses to put a cache where something else is."""
    if is_cache(folder) and (held := read_meta(folder)["source"]) != str(source.resolve()):
        raise DataError(
            f"{folder} holds the videos of {printable(held)}, not of {printable(source)}; "
            "choose another folder or delete that one"
        )
    if folder.is_dir() and any(folder.iterdir()) and not ((folder / "videos").is_dir() or is_cache(folder)):
        raise DataError(f"{folder} is not empty and no cache of videos; choose another folder")


def _check_space(folder: Path, needed_bytes: float) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SPARE_BYTES:
        raise DataError(
            f"{folder} needs about {needed_bytes / 2**20:.0f} MB more, and its disk has {free / 2**20:.0f} MB left; "
            "make room or choose another folder, then run the same again: it goes on where it stopped"
        )
