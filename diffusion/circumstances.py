"""What a run is trained with besides its configuration: written to its log, and compared when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion.data.build import is_cache, read_meta
from temporal_zoo.record import RecordError, read

if TYPE_CHECKING:
    import torch

    from diffusion.data.source import ClipSource

KIND = "start"  # of the records in the log, one for each time that a run is started or resumed
_NAMES = 3  # of videos that a line names
_WORDS = {"torch": "torch", "sources": "digest of our source files", "device": "device"}


def circumstances(clips: ClipSource, device: torch.device) -> dict[str, Any]:
    """Plain values: the device, and the videos by name with their frames."""
    videos = clips.videos
    folder = getattr(videos, "folder", None)
    return {
        "device": device.type,
        "videos": dict(zip(videos.names, videos.lengths, strict=True)),
        # Of the files that the cache was decoded from; videos that are rendered have none.
        "files": read_meta(folder).get("fingerprint") if folder is not None and is_cache(folder) else None,
    }


def with_versions(found: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """The same with what `temporal_zoo.environment` says of versions."""
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
    if "videos" in before:
        lines += _videos(before["videos"], now["videos"])
        if before["videos"] == now["videos"] and before.get("files") != now["files"]:
            lines.append("data: files were changed under the same names")
    return lines


def _videos(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    found = {
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
        "of another length": [name for name in now if before.get(name, now[name]) != now[name]],
    }
    return [
        f"data: {len(names)} {_videos_are(names)} {what} ({_some(names)})" for what, names in found.items() if names
    ]


def _videos_are(names: list[str]) -> str:
    return "video is" if len(names) == 1 else "videos are"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else "")
