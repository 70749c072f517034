"""Opens the cache of a source; builds it if it is missing, and again if the source has changed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np

from diffusion.data import DataError
from diffusion.data.build import FORMAT, IndexedVideo, build, is_cache, read_index, read_meta, remedy, size_of
from diffusion.data.changes import Changes
from diffusion.data.config import DataConfig, Split
from diffusion.data.layouts import search
from diffusion.data.names import printable
from diffusion.data.splits import select
from diffusion.data.videos import read_frames, several_rates
from temporal_zoo._support.files import cache_folder, read_json

log = logging.getLogger("temporal_zoo.data")


class CachedVideos:
    """Videos of a cache; see `diffusion.data.videos.Videos`.  It holds no open files, so it is cheap to pickle."""

    def __init__(self, folder: Path, videos: list[IndexedVideo], *, size: int, channels: int) -> None:
        self.folder, self.size, self.channels = folder, size, channels
        self.names = [video.name for video in videos]
        self.lengths = [video.frames for video in videos]
        self.rates = [video.fps for video in videos]
        self.fps = float(np.median(self.rates)) if videos else 1.0
        self._videos = videos

    @property
    def contents(self) -> dict[str, str]:
        """The digest of each video's decoded frames, by name."""
        return {video.name: video.digest for video in self._videos}

    def read(self, video: int, frames: slice) -> np.ndarray:
        """Frames of one video, (frames, size, size, channels) uint8; a grey video gets 3 channels if others have 3."""
        entry = self._videos[video]
        shape = {"length": entry.frames, "size": self.size, "channels": entry.channels, "first": entry.start}
        try:
            pixels = read_frames(self.folder / "videos" / entry.shard, frames, **shape)
        except DataError as error:
            raise DataError(f"{entry.name} is lost: {error}; run zoo data build again") from error
        return pixels if entry.channels == self.channels else pixels.repeat(self.channels, -1)


def cached_videos(source: Path, config: DataConfig, split: Split, *, without: Collection[str] = ()) -> CachedVideos:
    """Opens the videos of one split of a source, or of a cache; builds the cache if it is missing or stale.

    Args:
        without: names of files whose videos are left out.

    Raises:
        DataError: the source is missing, or none of its videos can be decoded.
    """
    folder = up_to_date(source, config)
    meta, videos = read_index(folder)
    chosen = select([video.name for video in videos], split, config.test_share)
    if len(videos) == 1 and split != "all" and config.test_share > 0:
        log.warning("%s holds a single video, which is used for training and for testing", printable(source))
    picked = [videos[index] for index in chosen][: config.videos]
    picked = [video for video in picked if not any(is_video_of(video.name, file) for file in without)]
    if warning := several_rates(video.fps for video in picked):
        log.warning("%s: %s", printable(source), warning)
    return CachedVideos(folder, picked, size=meta["size"], channels=max(video.channels for video in videos))


def is_video_of(video: str, file: str) -> bool:
    """Whether a video comes from a file.  If a file holds several, those after the first are named FILE#NUMBER."""
    return video == file or video.startswith(f"{file}#")


def up_to_date(source: Path, config: DataConfig) -> Path:
    """Returns the folder of a cache of `source` that matches its files; builds the cache if necessary.

    Raises:
        DataError: the cache has another size or a newer format, or nothing can be decoded.
    """
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
                    "%s was decoded by an older version, which took rotated videos as stored; "
                    "its source is gone, so it is used unchanged",
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
    """The reason why a cache does not match its source, or None."""
    if not (folder / "meta.json").exists():
        return "no decoded videos yet"
    meta = read_meta(folder)
    if meta["format"] != FORMAT or meta["size"] != size:
        return "the decoded videos have another format or size"
    listing = search(source)
    if meta["fingerprint"] != listing.fingerprint:
        changes = Changes.between(read_json(folder / "index.json", remedy(folder))["made_of"], listing.made_of)
        return f"the source has changed since it was decoded{f' ({changes})' if changes else ''}"
    needed: Counter[str] = Counter()
    for video in read_index(folder)[1]:
        needed[video.shard] += video.frames * size**2 * video.channels
    if any(size_of(folder / "videos" / shard) != size_bytes for shard, size_bytes in needed.items()):
        return "some decoded videos are missing or damaged"
    return None


def default_folder(source: Path, config: DataConfig) -> Path:
    """The default folder for the decoded videos of a source."""
    home = Path(config.cache).expanduser() if config.cache else cache_folder()
    digest = hashlib.blake2b(os.fsencode(source.resolve()), digest_size=4).hexdigest()
    return home / f"{source.resolve().name}-size{config.size}-{digest}"
