"""Decodes part of a source and reports its videos: `zoo data inspect`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diffusion.data.build import is_cache, read_index, remedy
from diffusion.data.files import VideoFile
from diffusion.data.layouts import search
from diffusion.data.names import printable
from diffusion.data.readers import UnreadableVideo, recordings
from diffusion.data.readers.recording import no_frames
from diffusion.data.splits import select
from temporal_zoo._support.files import read_json

SAMPLE = 50  # files to decode; more take long and add little


@dataclass
class Findings:
    """Facts about the decoded videos of a source.

    layout: name and description of the layout of the files.
    num_files, num_bytes: of the whole source.
    num_decoded: number of files that were decoded, in `seconds`.
    sizes: (height, width, channels) as shown -> number of videos.
    bad: one line for each file that cannot be used.
    notes: lines about lost frames, and about what a viewer would show differently.
    others: the number of files that are not videos, by file extension.
    """

    layout: str
    num_files: int
    num_bytes: int
    num_decoded: int = 0
    seconds: float = 0.0
    names: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    rates: Counter[float] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    @property
    def complete(self) -> bool:
        """Whether all files were decoded."""
        return self.num_decoded == self.num_files

    def usable(self, frames: int) -> int:
        """Number of decoded videos with at least `frames` frames."""
        return sum(length >= frames for length in self.lengths)

    def split_counts(self, test_share: float) -> dict[str, int]:
        """Number of decoded videos of each split."""
        return {split: len(select(self.names, split, test_share)) for split in ("train", "test")}

    def cache_bytes(self, size: int) -> int:
        """Estimates the size of a cache of the whole source."""
        channels = max((c for _, _, c in self.sizes), default=3)
        return sum(self.lengths) * size**2 * channels * self.num_files // max(1, self.num_decoded)


def inspect(source: Path, *, size: int) -> Iterator[Findings]:
    """Decodes up to SAMPLE files, spread over the source.

    Yields:
        The same object after each file, with the facts so far.

    Raises:
        DataError: the source is missing or holds no videos.
    """
    if is_cache(source):
        yield _of_cache(source)
        return
    listing = search(source)
    files = listing.files
    num_bytes = sum(file.size_bytes for file in files)
    findings = Findings(listing.layout, len(files), num_bytes, bad=list(listing.problems), others=listing.others)
    count = min(SAMPLE, len(files))
    started = time.perf_counter()
    for index in range(count):
        _add(files[index * len(files) // count], findings, size)
        findings.num_decoded += 1
        findings.seconds = time.perf_counter() - started
        yield findings


def _add(file: VideoFile, findings: Findings, size: int) -> None:
    """Decodes one file and adds its videos to the findings."""
    videos = []
    try:
        for number, recording in enumerate(recordings(file.path, size)):
            videos.append((number, recording, sum(len(block) for block in recording.blocks)))
        if not any(frames for *_, frames in videos):
            raise no_frames(file.path)
    except UnreadableVideo as error:
        findings.bad.append(str(error))
        return
    for number, recording, frames in videos:
        findings.names.append(file.name if number == 0 else f"{file.name}#{number}")
        findings.lengths.append(frames)
        findings.rates[round(recording.fps, 2)] += 1
        findings.sizes[recording.height, recording.width, recording.channels] += 1
        findings.notes += [f"{printable(file.path)}: {note}" for note in recording.notes]


def _of_cache(folder: Path) -> Findings:
    """The findings of a built cache, whose index has all facts."""
    meta, videos = read_index(folder)
    # Format 1 has neither of these lists.
    index = read_json(folder / "index.json", remedy(folder))
    bad, notes = index.get("bad", []), index.get("notes", [])
    num_bytes = sum(path.stat().st_size for path in (folder / "videos").glob("*.u8"))
    num_files = len({video.shard for video in videos})
    return Findings(
        layout="a built cache",
        num_files=num_files,
        num_bytes=num_bytes,
        num_decoded=num_files,
        names=[video.name for video in videos],
        lengths=[video.frames for video in videos],
        rates=Counter(round(video.fps, 2) for video in videos),
        sizes=Counter((meta["size"], meta["size"], video.channels) for video in videos),
        bad=bad,
        notes=notes,
        others=Counter(meta.get("others", {})),
    )
