"""Whether a run can be resumed, and what has changed since its last start.

A run resumes under the configuration that it was started with, except for the fields in `FREE`.  Other changes (torch,
our source files, the device, the videos) do not stop it; a start record in the log holds them, and the command prints
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion.config import TrainConfig
from diffusion.data import Changes
from diffusion.model.mixer_text import short
from temporal_zoo._support.record import RecordError, read
from temporal_zoo.config import ConfigError

if TYPE_CHECKING:
    import torch

    from diffusion.data.clips import ClipSource

# Fields that may change: how long a run trains, how often it reports, where decoded videos are, and what was read
# from the data.
FREE = frozenset({
    "steps", "save_every", "sample_every", "test_every", "data.cache", "model.channels", "model.size",
})  # fmt: skip
KIND = "start"  # of the log's record of each start and resumption
_LABELS = {"torch": "torch", "sources": "digest of our source files", "device": "device"}


def comparable(config: TrainConfig) -> dict[str, Any]:
    """Plain values of a configuration, in which equal mixers have equal texts."""
    return config.replace(model=config.model.replace(mixer=short(config.model.mixer))).to_dict()


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Field ("model.width") -> its two values, for every field in which two configurations differ."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*theirs, *(key for key in ours if key not in theirs)]:
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            found |= differences(mine, other, f"{prefix}{key}.")
        elif mine != other:
            found[f"{prefix}{key}"] = mine, other
    return found


def listed(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Lines "model.width: 32 in the checkpoint, 64 asked for"."""
    return "\n".join(
        f"  {field}: {theirs} in the checkpoint, {ours} asked for" for field, (ours, theirs) in found.items()
    )


def require_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], folder: Path) -> None:
    """Refuses to resume the run in `folder` if its configuration differs in fields that are not in `FREE`.

    Raises:
        ConfigError: the message lists every difference.
    """
    found = {field: values for field, values in differences(ours, theirs).items() if field not in FREE}
    if found:
        raise ConfigError(
            f"the run in {folder} was started with another configuration:\n{listed(found)}\n"
            "use the same one, or another folder with --out"
        )


def start_record(clips: ClipSource, device: torch.device) -> dict[str, Any]:
    """The device, and a digest of each video's frames by its name (none for videos that are rendered)."""
    return {"device": device.type, "videos": dict(clips.contents)}


def with_versions(start: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """A start record with the versions in `temporal_zoo._support.environment`: torch, and our source files."""
    software, code = environment.get("software", {}), environment.get("code", {})
    return {"torch": software.get("torch"), "sources": code.get("sources"), **start}


def last_start(log: Path) -> dict[str, Any]:
    """The last start record in a run's log, with versions; logs of older versions hold the versions alone."""
    try:
        reading = read(log) if log.is_file() else None  # reading a device would never end
    except RecordError:
        reading = None
    if reading is None:
        return {}
    start = (reading.of(KIND) or reading.of("environment") or [{}])[-1]
    return with_versions(start, reading.environments.get(start.get("environment", ""), start))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each difference between two start records with versions; none for values that `before` lacks."""
    lines = [
        f"{label}: {before[name]} before, {now[name]} now"
        for name, label in _LABELS.items()
        if before.get(name) is not None and before[name] != now[name]
    ]
    if changed := Changes.between(before.get("videos", now["videos"]), now["videos"]):
        lines.append(f"data: {changed}")
    return lines
