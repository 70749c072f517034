"""Checkpoints: state dicts, the configuration as a dictionary and a format number; written atomically, never pickled classes."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffusion.data.storage import written_whole
from temporal_zoo.config import ConfigError, nearest

FORMAT = 1
NAME = "checkpoint.pt"
SHIPPED = Path(__file__).parent / "checkpoints"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which and why."""


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` (tensors and plain values) so that the file is either the old one or the whole new one.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with written_whole(path) as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:  # how torch reports a failed write
            raise OSError(
                errno.EIO, f"the checkpoint could not be written, perhaps the disk is full ({error})", str(path)
            ) from error


def find(place: str | Path) -> Path:
    """The checkpoint file of a run's folder, of a file, or of "builtin:NAME", one that ships with the package.

    Raises:
        CheckpointError: there is none; for a built-in one, the message lists those that ship.
    """
    kind, colon, name = str(place).partition(":")
    if kind == "builtin" and colon:
        shipped = {folder.name: folder for folder in SHIPPED.iterdir() if (folder / NAME).exists()}
        if name not in shipped:
            raise CheckpointError(
                f"no checkpoint {name!r} ships with the package{nearest(name, shipped)}; there is {', '.join(shipped)}"
            )
        return shipped[name] / NAME
    path = Path(place) / NAME if Path(place).is_dir() else Path(place)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}")
    return path


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Raises:
        CheckpointError: not a checkpoint, a damaged one, or one of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn or foreign file fails in as many ways as there are formats
        raise CheckpointError(
            f"{path} is not a checkpoint of ours, or is damaged: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise CheckpointError(f"{path} has format {found}; this version reads format {FORMAT}")
    return content


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines "model.width: 32 in the checkpoint, 64 asked for" for every field in which two configurations differ."""
    lines = []
    for key in [*theirs, *(k for k in ours if k not in theirs)]:
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            lines += differences(mine, other, f"{prefix}{key}.")
        elif mine != other:
            lines.append(f"{prefix}{key}: {other} in the checkpoint, {mine} asked for")
    return lines


def require_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: Path, *, ignore: frozenset[str]) -> None:
    """Refuses to continue a run under another configuration, except for the fields in `ignore`.

    Raises:
        ConfigError: with every difference.
    """
    kept = [{k: v for k, v in side.items() if k not in ignore} for side in (ours, theirs)]
    if lines := differences(*kept):
        listing = "\n".join(f"  {line}" for line in lines)
        raise ConfigError(
            f"the run in {path} was started with another configuration:\n{listing}\n"
            "use the same one, or another folder with --out"
        )
