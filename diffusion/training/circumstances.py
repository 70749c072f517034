"""What a run is trained with besides its configuration: written to its log, and compared when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion.data import Changes
from temporal_zoo._support.record import RecordError, read

if TYPE_CHECKING:
    import torch

    from diffusion.data.clips import ClipSource

KIND = "start"  # of the records in the log, one for each time that a run is started or resumed
_WORDS = {"torch": "torch", "sources": "digest of our source files", "device": "device"}


def circumstances(clips: ClipSource, device: torch.device) -> dict[str, Any]:
    """Plain values: the device, and a digest of each video's frames by its name; none for videos that are rendered."""
    return {"device": device.type, "videos": dict(clips.contents)}


def with_versions(found: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """The same with what `temporal_zoo._support.environment` says of versions."""
    software, code = environment.get("software", {}), environment.get("code", {})
    return {"torch": software.get("torch"), "sources": code.get("sources"), **found}


def last(log: Path) -> dict[str, Any]:
    """Circumstances and versions of the last start in a run's log; logs of older versions tell the versions alone."""
    try:
        reading = read(log) if log.is_file() else None  # a device has no end
    except RecordError:
        reading = None
    if reading is None:
        return {}
    starts = reading.of(KIND) or reading.of("environment") or [{}]
    start = starts[-1]
    return with_versions(start, reading.environments.get(start.get("environment", ""), start))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A short line for everything in which a run goes on otherwise than it was begun; none for what is not known."""
    lines = [
        f"{words}: {before[name]} before, {now[name]} now"
        for name, words in _WORDS.items()
        if before.get(name) is not None and before[name] != now[name]
    ]
    if changed := Changes.between(before.get("videos", now["videos"]), now["videos"]):
        lines.append(f"data: {changed}")
    return lines
