"""Building a cache of decoded videos: every item is decoded once, at the size of training.

A cache is a folder: `videos/<digest>.u8` holds the frames of one item (frames, size, size, channels) uint8 without a
header, `videos/<digest>.json` what is in it or why it could not be read, `index.json` lists all videos, and
`meta.json`, written last, says what the cache was made of.  Digests name an item's path and state, so that a build
which was interrupted, or whose source has changed, decodes only what is missing.
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
from diffusion.data.layout import Item, find_items, fingerprint
from diffusion.data.readers import Recording, UnreadableVideo, recordings
from diffusion.data.storage import made, read_json, size_of, write_json, written_whole

KIND = "temporal_zoo videos"
# Bump it whenever the same files would be stored otherwise: the centre square by areas, uint8, frames first.
FORMAT = 1
_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """One decoded video: `frames` frames of its shard from `start` on."""

    name: str
    shard: str
    start: int
    frames: int
    channels: int
    fps: float


@dataclass(frozen=True)
class Built:
    """One step of a build: the item just done, why it is bad if it is, and how far the build has come."""

    name: str
    frames: int
    bad: str | None
    done: int
    total: int


def build(source: Path, folder: Path, *, size: int, strict: bool = False) -> Iterator[Built]:
    """Decodes a source into a cache, item by item; items that are there already are kept.

    Files that cannot be decoded are left out and listed in bad_files.txt; `strict` makes the first one an error.

    Raises: DataError when nothing can be decoded, the disk is too small, or channels differ.
    """
    _check_folder(folder, source)
    items = find_items(source)
    shards = made(folder / "videos")
    bytes_left = sum(item.size_bytes for item in items)
    bytes_read = bytes_written = 0
    records = []
    for done, item in enumerate(items, 1):
        digest = _digest(item, size)
        record = _finished(shards, digest)
        if record is None or (record["bad"] and strict):
            _check_space(folder, bytes_written / max(bytes_read, 1) * bytes_left)
            record = _decode(item, shards, digest, size)
            bytes_read += item.size_bytes
            bytes_written += record["bytes"]
        if record["bad"] and strict:
            raise DataError(f"{record['bad']}; without strict it would be left out")
        bytes_left -= item.size_bytes
        records.append(record)
        yield Built(item.name, sum(entry["frames"] for entry in record["videos"]), record["bad"], done, len(items))
    _finish(source, folder, items, records, size)


def is_cache(folder: Path) -> bool:
    """Whether a folder is a cache that was built to the end."""
    try:
        return read_meta(folder).get("kind") == KIND
    except (OSError, DataError):
        return False


def read_meta(folder: Path) -> dict[str, Any]:
    """What a cache was made of."""
    return read_json(folder / "meta.json")


def read_index(folder: Path) -> tuple[dict[str, Any], list[Entry]]:
    """What a cache was made of, and its videos in the order of their names."""
    return read_meta(folder), [Entry(**entry) for entry in read_json(folder / "index.json")["videos"]]


def _decode(item: Item, shards: Path, digest: str, size: int) -> dict[str, Any]:
    """Decodes one item into its shard and notes what is in it; the note is written last."""
    videos: list[dict[str, Any]] = []
    frames, bad = 0, None
    try:
        with written_whole(shards / f"{digest}.u8") as file:
            for number, recording in enumerate(recordings(item.path, size)):
                start = frames
                frames += _write(recording, file)
                name = item.name if number == 0 else f"{item.name}#{number}"
                entry = Entry(name, f"{digest}.u8", start, frames - start, recording.channels, recording.fps)
                videos.append(asdict(entry))
            if frames == 0:
                raise UnreadableVideo(f"{item.path}: there are no frames in it")
    except UnreadableVideo as error:
        videos, bad = [], str(error)
    record = {"videos": videos, "bad": bad, "bytes": sum(v["frames"] * size**2 * v["channels"] for v in videos)}
    write_json(shards / f"{digest}.json", record)
    return record


def _write(recording: Recording, file: Any) -> int:
    frames = 0
    for block in recording.blocks:
        file.write(np.ascontiguousarray(block).data)
        frames += len(block)
    return frames


def _finish(source: Path, folder: Path, items: list[Item], records: list[dict], size: int) -> None:
    """Writes the index and, last of all, meta.json; then removes the shards of items that are gone."""
    bad = [record["bad"] for record in records if record["bad"]]
    videos = [video for record in records for video in record["videos"]]
    bad_files = folder / "bad_files.txt"
    if bad:
        with written_whole(bad_files) as file:
            file.write("".join(f"{reason}\n" for reason in bad).encode())
    else:
        bad_files.unlink(missing_ok=True)
    if not videos:
        raise DataError(f"none of the {len(items)} videos of {source} can be decoded; the first: {bad[0]}")
    by_channels = {video["channels"]: video["name"] for video in videos}
    if len(by_channels) > 1:
        examples = ", ".join(f"{name} has {channels}" for channels, name in by_channels.items())
        raise DataError(f"the videos of {source} differ in their number of channels: {examples}; convert them to one")
    write_json(folder / "index.json", {"videos": videos})
    meta = {"kind": KIND, "format": FORMAT, "size": size, "source": str(source.resolve())}
    write_json(folder / "meta.json", meta | {"fingerprint": fingerprint(items), "num_videos": len(videos)})
    _sweep(folder / "videos", {_digest(item, size) for item in items})


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
        record = read_json(shards / f"{digest}.json")
        whole = record["bad"] or size_of(shards / f"{digest}.u8") == record["bytes"]
    except (OSError, DataError):
        return None
    return record if whole else None


def _check_folder(folder: Path, source: Path) -> None:
    """Refuses to put a cache where something else is."""
    if is_cache(folder) and (held := read_meta(folder)["source"]) != str(source.resolve()):
        raise DataError(
            f"{folder} holds the videos of {held}, not of {source}; choose another folder or delete that one"
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
