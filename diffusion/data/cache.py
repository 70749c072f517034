"""Decoded videos on disk, read by slices of time; built when missing, and again when their source has changed."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from pathlib import Path

import numpy as np

from diffusion.data import DataError
from diffusion.data.build import FORMAT, Entry, build, is_cache, read_index, read_meta
from diffusion.data.config import DataConfig, Split
from diffusion.data.layout import find_items, fingerprint, select
from diffusion.data.storage import read_frames, size_of
from temporal_zoo.cache import cache_folder

log = logging.getLogger("temporal_zoo.data")


class CachedVideos:
    """Some videos of a cache; see `diffusion.data.source.Videos`.  Holds paths, not files, so it is cheap to send."""

    def __init__(self, folder: Path, entries: list[Entry], *, size: int, channels: int) -> None:
        self.folder, self.size, self.channels = folder, size, channels
        self.names = [entry.name for entry in entries]
        self.lengths = [entry.frames for entry in entries]
        self.fps = float(np.median([entry.fps for entry in entries])) if entries else 1.0
        self._entries = entries

    def read(self, video: int, frames: slice) -> np.ndarray:
        """Frames of one video, (frames, size, size, channels) uint8."""
        entry = self._entries[video]
        shape = {"length": entry.frames, "size": self.size, "channels": self.channels, "first": entry.start}
        try:
            return read_frames(self.folder / "videos" / entry.shard, frames, **shape)
        except DataError as error:
            raise DataError(f"{entry.name} is lost: {error}; run zoo data build again") from error


def cached_videos(source: Path, config: DataConfig, split: Split) -> CachedVideos:
    """The videos of one split of a source, or of a cache; (re)builds the cache when it is missing or stale."""
    folder = up_to_date(source, config)
    meta, entries = read_index(folder)
    chosen = select([entry.name for entry in entries], split, config.test_share)
    if len(entries) == 1 and split != "all" and config.test_share > 0:
        log.warning("%s holds a single video: it is used for training and for testing", source)
    picked = [entries[video] for video in chosen][: config.videos]
    return CachedVideos(folder, picked, size=meta["size"], channels=entries[0].channels)


def up_to_date(source: Path, config: DataConfig) -> Path:
    """The folder of a cache of `source` that agrees with its files, built now if need be."""
    if is_cache(source):
        folder, meta = source, read_meta(source)
        if meta["size"] != config.size:
            raise DataError(
                f"{source} holds videos of {meta['size']} pixels, not {config.size}; set size={meta['size']}"
            )
        source = Path(meta["source"])
        if not source.exists():
            if meta["format"] != FORMAT:
                raise DataError(f"{folder} has format {meta['format']}, not {FORMAT}, and its source {source} is gone")
            return folder
    else:
        folder = default_folder(source, config)
    stale = why_stale(source, folder, config.size)
    if stale:
        log.warning("%s in %s: decoding %s at %d pixels", stale, folder, source, config.size)
        for step in build(source, folder, size=config.size):
            if step.bad:
                log.warning("left out: %s", step.bad)
            log.info("%d of %d: %s, %d frames", step.done, step.total, step.name, step.frames)
    return folder


def why_stale(source: Path, folder: Path, size: int) -> str | None:
    """Why a cache does not show what the source holds now; None when it does."""
    if not (folder / "meta.json").exists():
        return "no decoded videos yet"
    meta = read_meta(folder)
    if meta["format"] != FORMAT or meta["size"] != size:
        return "the decoded videos have another format or size"
    if meta["fingerprint"] != fingerprint(find_items(source)):
        return "the source has changed since it was decoded"
    needed: Counter[str] = Counter()
    for entry in read_index(folder)[1]:
        needed[entry.shard] += entry.frames * size**2 * entry.channels
    if any(size_of(folder / "videos" / shard) != size_bytes for shard, size_bytes in needed.items()):
        return "some decoded videos are missing or damaged"
    return None


def default_folder(source: Path, config: DataConfig) -> Path:
    """Where the decoded videos of a source go when nobody says where."""
    home = Path(config.cache).expanduser() if config.cache else cache_folder()
    place = hashlib.blake2b(str(source.resolve()).encode(), digest_size=4).hexdigest()
    return home / f"{source.resolve().name}-size{config.size}-{place}"
