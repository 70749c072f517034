"""What a run was made with, kept in its checkpoint; and what is different when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusion.data.build import is_cache, read_meta

if TYPE_CHECKING:
    import torch

    from diffusion.data.source import ClipSource

_NAMES = 3  # of videos that a line names
_WORDS = {
    "torch": "torch",
    "sources": "digest of our source files",
    "device": "device",
}


def made_with(clips: ClipSource, device: torch.device, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values: versions of `environment`, device, and the videos by name with their frames."""
    videos = clips.videos
    folder = getattr(videos, "folder", None)
    return {
        "torch": str(environment["software"]["torch"]),
        "sources": environment["code"]["sources"],
        "device": device.type,
        "videos": dict(zip(videos.names, videos.lengths, strict=True)),
        # Of the files that the cache was decoded from; videos that are rendered have none.
        "files": read_meta(folder).get("fingerprint") if folder is not None and is_cache(folder) else None,
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A short line for everything in which a run goes on otherwise than it was begun; none for what is not known."""
    lines = [
        f"{words}: {before[name]} before, {now[name]} now"
        for name, words in _WORDS.items()
        if name in before and before[name] != now[name]
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
