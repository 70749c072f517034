"""Checkpoints: state dicts, the configuration as a dictionary, a format number; written whole, no pickled classes."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffusion.data.storage import written_whole
from temporal_zoo.config import ConfigError, nearest
from temporal_zoo.errors import InvalidInput

FORMAT = 1
NAME = "checkpoint.pt"
SHIPPED = Path(__file__).parent / "checkpoints"


class CheckpointError(InvalidInput):
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
        shipped = {path.parent.name: path for path in SHIPPED.glob(f"*/{NAME}")}
        if name not in shipped:
            there = ", ".join(shipped) or "none"
            raise CheckpointError(
                f"no checkpoint {name!r} ships with the package{nearest(name, shipped)}; there is {there}"
            )
        return shipped[name]
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
    except OSError:
        raise
    except Exception as error:  # a torn or foreign file fails in as many ways as there are formats
        why = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is not a checkpoint of ours, or is damaged: {why}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise CheckpointError(f"{path} has format {found}; this version reads format {FORMAT}")
    return content


def fill(network: nn.Module, weights: Mapping[str, Any], path: Path, reasons: Mapping[str, tuple]) -> None:
    """Gives a network the weights of the checkpoint at `path`.

    Args:
        reasons: how the two configurations of the network differ (`differences`), for the message.
    Raises:
        CheckpointError: they are the weights of another network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        why = listed(reasons) or f"  {str(error).splitlines()[1].strip()}"
        raise CheckpointError(f"the weights in {path} are those of another network:\n{why}") from error


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


def require_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], folder: Path, *, ignore: frozenset[str]) -> None:
    """Refuses to continue the run in `folder` under another configuration, except for the fields in `ignore`.

    Raises:
        ConfigError: with every difference.
    """
    found = {field: values for field, values in differences(ours, theirs).items() if field not in ignore}
    if found:
        raise ConfigError(
            f"the run in {folder} was started with another configuration:\n{listed(found)}\n"
            "use the same one, or another folder with --out"
        )
