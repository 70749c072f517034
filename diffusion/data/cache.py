"""Decoded videos on disk, read by slices of time; built when missing, and again when their source has changed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np

from diffusion.data import DataError
from diffusion.data.build import FORMAT, Entry, build, is_cache, read_index, read_meta
from diffusion.data.changes import Changes, several_rates
from diffusion.data.config import DataConfig, Split
from diffusion.data.layout import select
from diffusion.data.names import printable
from diffusion.data.search import search
from diffusion.data.storage import read_frames, size_of
from temporal_zoo._support.files import cache_folder, read_json

log = logging.getLogger("temporal_zoo.data")


class CachedVideos:
    """Some videos of a cache; see `diffusion.data.source.Videos`.  Holds paths, not files, so it is cheap to send."""

    def __init__(self, folder: Path, entries: list[Entry], *, size: int, channels: int) -> None:
        self.folder, self.size, self.channels = folder, size, channels
        self.names = [entry.name for entry in entries]
        self.lengths = [entry.frames for entry in entries]
        self.rates = [entry.fps for entry in entries]
        self.fps = float(np.median(self.rates)) if entries else 1.0
        self._entries = entries

    @property
    def contents(self) -> dict[str, str]:
        """The digest of each video's decoded frames, by name."""
        return {entry.name: entry.digest for entry in self._entries}

    def read(self, video: int, frames: slice) -> np.ndarray:
        """Frames of one video, (frames, size, size, channels) uint8; grey ones among coloured ones become coloured."""
        entry = self._entries[video]
        shape = {"length": entry.frames, "size": self.size, "channels": entry.channels, "first": entry.start}
        try:
            pixels = read_frames(self.folder / "videos" / entry.shard, frames, **shape)
        except DataError as error:
            raise DataError(f"{entry.name} is lost: {error}; run zoo data build again") from error
        return pixels if entry.channels == self.channels else pixels.repeat(self.channels, -1)


def cached_videos(source: Path, config: DataConfig, split: Split) -> CachedVideos:
    """The videos of one split of a source, or of a cache; (re)builds the cache when it is missing or stale."""
    folder = up_to_date(source, config)
    meta, entries = read_index(folder)
    chosen = select([entry.name for entry in entries], split, config.test_share)
    if len(entries) == 1 and split != "all" and config.test_share > 0:
        log.warning("%s holds a single video: it is used for training and for testing", printable(source))
    picked = [entries[video] for video in chosen][: config.videos]
    if remark := several_rates(entry.fps for entry in picked):
        log.warning("%s: %s", printable(source), remark)
    return CachedVideos(folder, picked, size=meta["size"], channels=max(entry.channels for entry in entries))


def up_to_date(source: Path, config: DataConfig) -> Path:
    """The folder of a cache of `source` that agrees with its files, built now if need be."""
    if is_cache(source):
        folder, meta = source, read_meta(source)
        if meta["size"] != config.size:
            raise DataError(
                f"{printable(source)} holds videos of {meta['size']} pixels, not {config.size}; set size={meta['size']}"
            )
        source = Path(meta["source"])
        if not source.exists():
            if meta["format"] > FORMAT:
                raise DataError(
                    f"{printable(folder)} has format {meta['format']}, this version reads up to {FORMAT}, "
                    f"and its source {printable(source)} is gone; install a newer version"
                )
            if meta["format"] < FORMAT:
                log.warning(
                    "%s was decoded by an older version, which took rotated videos as they are stored; "
                    "its source is gone, so that it is used as it is",
                    printable(folder),
                )
            return folder
    else:
        folder = default_folder(source, config)
    stale = why_stale(source, folder, config.size)
    if stale:
        log.warning("%s in %s: decoding %s at %d pixels", stale, printable(folder), printable(source), config.size)
        for step in build(source, folder, size=config.size):
            if step.bad:
                log.warning("left out: %s", step.bad)
            for note in step.notes:
                log.warning("%s", note)
            log.info("%d of %d: %s, %d frames", step.done, step.total, step.name, step.frames)
    return folder


def why_stale(source: Path, folder: Path, size: int) -> str | None:
    """Why a cache does not show what the source holds now; None when it does."""
    if not (folder / "meta.json").exists():
        return "no decoded videos yet"
    meta = read_meta(folder)
    if meta["format"] != FORMAT or meta["size"] != size:
        return "the decoded videos have another format or size"
    found = search(source)
    if meta["fingerprint"] != found.fingerprint:
        changes = Changes.between(read_json(folder / "index.json", "build it again")["made_of"], found.made_of)
        return f"the source has changed since it was decoded{f' ({changes})' if changes else ''}"
    needed: Counter[str] = Counter()
    for entry in read_index(folder)[1]:
        needed[entry.shard] += entry.frames * size**2 * entry.channels
    if any(size_of(folder / "videos" / shard) != size_bytes for shard, size_bytes in needed.items()):
        return "some decoded videos are missing or damaged"
    return None


def default_folder(source: Path, config: DataConfig) -> Path:
    """Where the decoded videos of a source go when nobody says where."""
    home = Path(config.cache).expanduser() if config.cache else cache_folder()
    place = hashlib.blake2b(os.fsencode(source.resolve()), digest_size=4).hexdigest()
    return home / f"{source.resolve().name}-size{config.size}-{place}"
