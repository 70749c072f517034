"""What a source holds, found out by decoding some of it: the facts behind `zoo data inspect`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diffusion.data.build import is_cache, read_index
from diffusion.data.layout import select
from diffusion.data.names import printable
from diffusion.data.readers import UnreadableVideo, recordings
from diffusion.data.search import Item, search
from temporal_zoo._support.files import read_json

SAMPLE = 50  # items decoded; more would take long and say little


@dataclass
class Findings:
    """Facts about the videos looked at; `sizes` are (height, width, channels) as shown.

    bad: a line for each entry that cannot be used.  notes: a line for each thing that was lost or looks otherwise in a
    viewer.  others: how many files are no videos, by ending.
    """

    num_items: int
    num_bytes: int
    looked_at: int = 0
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
        """Whether everything was looked at."""
        return self.looked_at == self.num_items

    def usable(self, frames: int) -> int:
        """How many of the videos looked at are long enough."""
        return sum(length >= frames for length in self.lengths)

    def split_counts(self, test_share: float) -> dict[str, int]:
        """Videos of each split among those looked at."""
        return {split: len(select(self.names, split, test_share)) for split in ("train", "test")}

    def cache_bytes(self, size: int) -> int:
        """About what a cache of the whole source would take."""
        channels = max((c for _, _, c in self.sizes), default=3)
        return sum(self.lengths) * size**2 * channels * self.num_items // max(1, self.looked_at)


def inspect(source: Path, *, size: int) -> Iterator[Findings]:
    """Looks at up to SAMPLE items spread over the source; yields the same growing findings after each of them."""
    if is_cache(source):
        yield _of_cache(source)
        return
    found = search(source)
    items = found.items
    num_bytes = sum(item.size_bytes for item in items)
    findings = Findings(len(items), num_bytes, bad=list(found.problems), others=found.others)
    count = min(SAMPLE, len(items))
    started = time.perf_counter()
    for index in range(count):
        _look(items[index * len(items) // count], findings, size)
        findings.looked_at += 1
        findings.seconds = time.perf_counter() - started
        yield findings


def _look(item: Item, findings: Findings, size: int) -> None:
    seen = []
    try:
        for number, recording in enumerate(recordings(item.path, size)):
            seen.append((number, recording, sum(len(block) for block in recording.blocks)))
        if not any(frames for *_, frames in seen):
            raise UnreadableVideo(item.path, "there are no frames in it")
    except UnreadableVideo as error:
        findings.bad.append(str(error))
        return
    for number, recording, frames in seen:
        findings.names.append(item.name if number == 0 else f"{item.name}#{number}")
        findings.lengths.append(frames)
        findings.rates[round(recording.fps, 2)] += 1
        findings.sizes[recording.height, recording.width, recording.channels] += 1
        findings.notes += [f"{printable(item.path)}: {note}" for note in recording.notes]


def _of_cache(folder: Path) -> Findings:
    meta, entries = read_index(folder)
    # Before format 2 it had neither of these lists.
    index = read_json(folder / "index.json", f"delete {folder} and build it again")
    bad, notes = index.get("bad", []), index.get("notes", [])
    num_bytes = sum(path.stat().st_size for path in (folder / "videos").glob("*.u8"))
    num_items = len({entry.shard for entry in entries})
    return Findings(
        num_items=num_items,
        num_bytes=num_bytes,
        looked_at=num_items,
        names=[entry.name for entry in entries],
        lengths=[entry.frames for entry in entries],
        rates=Counter(round(entry.fps, 2) for entry in entries),
        sizes=Counter((meta["size"], meta["size"], entry.channels) for entry in entries),
        bad=bad,
        notes=notes,
        others=Counter(meta.get("others", {})),
    )
