"""Builds a cache of decoded videos: decodes every file once, at the training size.

A cache is a folder:

* `videos/<digest>.u8`: a shard, the frames of one file, (frames, size, size, channels) uint8 without a header;
* `videos/<digest>.json`: the videos in the shard, or the reason why the file could not be read;
* `index.json`: all videos, and the files that they come from;
* `bad_files.txt`: a line for each file that was left out, lost frames, or looks different in a viewer;
* `meta.json`: the source and the format; written last.

A digest names a file's path and state, so that a build that was interrupted, or whose source has changed, decodes only
what is missing.
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
from diffusion.data.files import Listing, VideoFile
from diffusion.data.layouts import search
from diffusion.data.names import printable
from diffusion.data.readers import Recording, UnreadableVideo, recordings
from diffusion.data.readers.recording import no_frames
from temporal_zoo._support import units
from temporal_zoo._support.files import read_json, write_json, written_whole
from temporal_zoo.errors import InvalidInput

KIND = "temporal_zoo videos"
# Increase it when the same files would be stored differently: the centre square, area-averaged, uint8, frames first.
# Format 1 took pictures as stored; format 2 takes them as a viewer shows them and has digests of the decoded frames.
FORMAT = 2
_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class IndexedVideo:
    """One decoded video in the index of a cache.

    shard, start, frames: its file, the index of its first frame there, and its number of frames.
    digest: of the decoded frames; empty in caches of format 1.
    """

    name: str
    shard: str
    start: int
    frames: int
    channels: int
    fps: float
    digest: str = ""


@dataclass(frozen=True)
class BuildStep:
    """One step of a build.

    name, frames: the file that was just decoded, and its number of frames.
    bad: why the file is left out, or None.
    notes: lines about lost frames, and about what a viewer would show differently.
    done, total: numbers of files.
    """

    name: str
    frames: int
    bad: str | None
    notes: list[str]
    done: int
    total: int


def build(source: Path, folder: Path, *, size: int, strict: bool = False) -> Iterator[BuildStep]:
    """Decodes a source into a cache, file by file; keeps files that are already decoded.

    Args:
        source: a file or folder.
        folder: of the cache.
        size: height and width of the decoded frames in pixels.
        strict: whether the first file that cannot be used, or the first lost frame, is an error.  Otherwise such files
            are listed in bad_files.txt.

    Raises:
        DataError: nothing can be decoded, the disk is too small, or `folder` holds something else.
    """
    _check_folder(folder, source)
    listing = search(source)
    total = len(listing.files)
    for problem in listing.problems:
        if strict:
            raise DataError(f"{problem}; without strict, the build leaves it out")
        yield BuildStep(problem.partition(": ")[0], 0, problem, [], 0, total)
    shards = _make_folder(folder / "videos")
    bytes_left = sum(file.size_bytes for file in listing.files)
    bytes_read = bytes_written = 0
    records = []
    for done, file in enumerate(listing.files, 1):
        digest = _digest(file, size)
        record = _finished(shards, digest)
        if record is None or (record["bad"] and strict):
            _check_space(folder, bytes_written / max(bytes_read, 1) * bytes_left)
            record = _decode(file, shards, digest, size)
            bytes_read += file.size_bytes
            bytes_written += record["bytes"]
        if strict and record["bad"]:
            raise DataError(f"{record['bad']}; without strict, the build leaves it out")
        if strict and record["lost"]:
            raise DataError(f"{record['notes'][0]}; without strict, the build keeps the other frames")
        bytes_left -= file.size_bytes
        records.append(record)
        frames = sum(video["frames"] for video in record["videos"])
        yield BuildStep(file.name, frames, record["bad"], record["notes"], done, total)
    _finish(source, folder, listing, records, size)


def is_cache(folder: Path) -> bool:
    """Whether a folder is a cache whose build is complete."""
    try:
        return (folder / "meta.json").is_file() and read_meta(folder).get("kind") == KIND
    except (OSError, InvalidInput):
        return False


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads meta.json of a cache: source, format, size in pixels.

    Raises:
        DamagedFile: it is damaged.
    """
    return read_json(folder / "meta.json", remedy(folder))


def read_index(folder: Path) -> tuple[dict[str, Any], list[IndexedVideo]]:
    """Reads meta.json of a cache, and its videos in the order of their names."""
    videos = read_json(folder / "index.json", remedy(folder))["videos"]
    return read_meta(folder), [IndexedVideo(**video) for video in videos]


def remedy(folder: Path) -> str:
    """What to do about a damaged cache."""
    return f"delete {folder} and build it again"


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write in {folder} ({error.strerror}); choose another folder, or set ZOO_CACHE"
        ) from error
    return folder


def _decode(file: VideoFile, shards: Path, digest: str, size: int) -> dict[str, Any]:
    """Decodes one file into its shard, then writes the JSON file beside it."""
    videos: list[dict[str, Any]] = []
    frames, lost, bad = 0, 0, None
    notes: list[str] = []
    try:
        with written_whole(shards / f"{digest}.u8") as shard:
            for number, recording in enumerate(recordings(file.path, size)):
                start = frames
                written, frames_digest = _write(recording, shard)
                frames, lost = frames + written, lost + recording.lost
                name = file.name if number == 0 else f"{file.name}#{number}"
                video = IndexedVideo(
                    name, f"{digest}.u8", start, written, recording.channels, recording.fps, frames_digest
                )
                videos.append(asdict(video))
                notes += [f"{printable(file.path)}: {note}" for note in recording.notes]
            if frames == 0:
                raise no_frames(file.path)
    except UnreadableVideo as error:
        videos, notes, lost, bad = [], [], 0, str(error)
    size_bytes = sum(v["frames"] * size**2 * v["channels"] for v in videos)
    record = {"videos": videos, "bad": bad, "notes": notes, "lost": lost, "bytes": size_bytes}
    write_json(shards / f"{digest}.json", record)
    return record


def _write(recording: Recording, shard: Any) -> tuple[int, str]:
    """Writes all frames of a video; returns their number and a digest of them."""
    frames, digest = 0, hashlib.blake2b(digest_size=8)
    for block in recording.blocks:
        pixels = np.ascontiguousarray(block).data
        shard.write(pixels)
        digest.update(pixels)
        frames += len(block)
    return frames, digest.hexdigest()


def _finish(source: Path, folder: Path, listing: Listing, records: list[dict], size: int) -> None:
    """Writes the index, then meta.json; then removes the shards of files that are gone."""
    bad = listing.problems + [record["bad"] for record in records if record["bad"]]
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
            f"none of the {len(listing.files)} videos in {printable(source)} can be decoded; the first: {first}"
        )
    write_json(folder / "index.json", {"videos": videos, "made_of": listing.made_of, "bad": bad, "notes": notes})
    meta = {"kind": KIND, "format": FORMAT, "size": size, "source": str(source.resolve())}
    meta |= {"fingerprint": listing.fingerprint, "num_videos": len(videos), "others": dict(listing.others)}
    write_json(folder / "meta.json", meta)
    _remove_unused(folder / "videos", {_digest(file, size) for file in listing.files})


def _remove_unused(shards: Path, wanted: set[str]) -> None:
    """Removes shards that no file needs, and incomplete files that are older than a day."""
    for path in shards.iterdir():
        abandoned = path.suffix == ".part" and time.time() - path.stat().st_mtime > 86_400
        if abandoned or (path.suffix in (".u8", ".json") and path.stem not in wanted):
            with contextlib.suppress(OSError):  # some systems do not delete a file that is in use
                path.unlink()


def _digest(file: VideoFile, size: int) -> str:
    text = f"{FORMAT}/{size}/{file.name}/{file.size_bytes}/{file.stamp}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _finished(shards: Path, digest: str) -> dict[str, Any] | None:
    """The record of a file that was decoded, or that cannot be decoded; None if no build has tried it."""
    try:
        record = read_json(shards / f"{digest}.json", "")
        whole = record["bad"] or size_of(shards / f"{digest}.u8") == record["bytes"]
    except (OSError, InvalidInput):
        return None
    return record if whole else None


def size_of(path: Path) -> int | None:
    """Size of a file in bytes; None if there is no such file."""
    return path.stat().st_size if path.exists() else None


def _check_folder(folder: Path, source: Path) -> None:
    """Raises DataError if the folder holds anything but a cache of this source."""
    if is_cache(folder) and (other := read_meta(folder)["source"]) != str(source.resolve()):
        raise DataError(
            f"{folder} holds the videos of {printable(other)}, not of {printable(source)}; "
            "choose another folder or delete that one"
        )
    if folder.is_dir() and any(folder.iterdir()) and not ((folder / "videos").is_dir() or is_cache(folder)):
        raise DataError(f"{folder} is not empty and is not a cache of videos; choose another folder")


def _check_space(folder: Path, needed_bytes: float) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SPARE_BYTES:
        raise DataError(
            f"{folder} needs about {units.size(needed_bytes)} more, and its disk has {units.size(free)} left; "
            "free some space or choose another folder, then run the command again to resume"
        )
