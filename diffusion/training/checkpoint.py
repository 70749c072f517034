"""Checkpoint files: state dicts, the configuration as a dictionary, and a format number; no pickled classes.

The configuration holds every option of every mixer, so that a checkpoint keeps its meaning when a default changes.
`load` converts files of older formats (`diffusion.training.migrations`).
"""

from __future__ import annotations

import errno
import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.config import TrainConfig
from diffusion.model import backbones
from diffusion.training.migrations import FORMAT, migrated
from diffusion.training.resume import listed
from temporal_zoo._support.files import written_whole
from temporal_zoo.config import nearest
from temporal_zoo.errors import InvalidInput

NAME = "checkpoint.pt"
# The parts that sampling and starting another run need, and the parts that resuming needs.
WEIGHTS = ("config", "step", "fps", "average")
WHOLE = (*WEIGHTS, "network", "optimizer")
_MOMENTS = ("exp_avg", "exp_avg_sq")
SHIPPED = Path(__file__).parents[1] / "checkpoints"


class CheckpointError(InvalidInput):
    """A checkpoint cannot be used; the message says which one and why."""


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` (tensors and plain values); the file is always the old one or the complete new one.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with written_whole(path) as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:  # torch raises this when a write fails
            raise OSError(
                errno.EIO, f"the checkpoint could not be written, perhaps the disk is full ({error})", str(path)
            ) from error


def find(place: str | Path) -> Path:
    """The checkpoint file of a place: a run's folder, a file, or "builtin:NAME", which ships with the package.

    Raises:
        CheckpointError: there is no checkpoint; for a built-in name, the message lists those that ship.
    """
    kind, colon, name = str(place).partition(":")
    if kind == "builtin" and colon:
        shipped = {path.parent.name: path for path in SHIPPED.glob(f"*/{NAME}")}
        if name not in shipped:
            choices = ", ".join(shipped) or "none"
            raise CheckpointError(
                f"no checkpoint {name!r} ships with the package{nearest(name, shipped)}; choose from {choices}"
            )
        return shipped[name]
    path = Path(place) / NAME if Path(place).is_dir() else Path(place)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}")
    return path


def load(path: Path, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU, in the present format.

    Args:
        parts: the parts that it must hold, `WEIGHTS` or `WHOLE`.
    Raises:
        CheckpointError: the file is not a checkpoint, is damaged, has a newer format, or lacks parts.
        OSError: the file cannot be opened.
    """
    content = _read(path)
    found = content.get("format") if isinstance(content, dict) else None
    if type(found) is not int or not 1 <= found <= FORMAT:
        raise CheckpointError(f"{path} has format {found}; this version reads formats 1 to {FORMAT}")
    _require(content, parts, path)
    try:
        return migrated(content)
    except InvalidInput as error:
        raise CheckpointError(f"the configuration in {path} cannot be used: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} has format {found}, but not the form of that format: {error}") from error


def config_of(content: Mapping[str, Any], path: Path) -> TrainConfig:
    """The configuration in the checkpoint at `path`; fields that the file lacks have their defaults.

    Raises:
        CheckpointError: this version cannot read the configuration.
    """
    try:
        config = TrainConfig.from_dict(content["config"])
        backbones.mixers(config.model)
        return config
    except InvalidInput as error:
        raise CheckpointError(f"the configuration in {path} cannot be used: {error}") from error


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # Torch's own message advises to read the file without this check, which could run code from the file.
            foreign = "GLOBAL" in str(error) or "global" in str(error)
            why = "it holds more than tensors and plain values" if foreign else "it cannot be decoded"
            raise _not_ours(path, why) from error
        except MemoryError:
            raise
        except Exception as error:  # torch has no common class for damaged and foreign files
            raise _not_ours(path, str(error).partition("\n")[0] or "the file ends too soon") from error


def _not_ours(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a checkpoint of zoo train, or is damaged: {why}; use a checkpoint.pt or weights.pt of a run"
    )


def _require(content: Mapping[str, Any], parts: Sequence[str], path: Path) -> None:
    if missing := [part for part in parts if part not in content]:
        hint = ""
        if parts == WHOLE and not set(missing) & set(WEIGHTS):
            hint = (
                ". Like weights.pt, it holds only averaged weights: zoo sample and --start can use it, "
                "but a run cannot be resumed from it"
            )
        raise CheckpointError(f"{path} is not a complete checkpoint: it lacks {', '.join(missing)}{hint}")
    if wrong := [part for part in parts if not _SHAPES[part](content[part])]:
        raise CheckpointError(f"{path} is damaged: its {', '.join(wrong)} cannot be used")


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


_SHAPES = {
    "config": lambda value: isinstance(value, Mapping),
    "step": lambda value: type(value) is int and value >= 0,
    "fps": lambda value: type(value) in (int, float) and 0 < value < math.inf,
    "average": _is_state,
    "network": _is_state,
    "optimizer": lambda value: isinstance(value, Mapping) and {"state", "param_groups"} <= value.keys(),
}


def fill(network: nn.Module, weights: Mapping[str, Any], path: Path, reasons: Mapping[str, tuple]) -> None:
    """Loads the weights of the checkpoint at `path` into a network.

    Args:
        reasons: differences between the two configurations (`resume.differences`), for the message.
    Raises:
        CheckpointError: the weights are those of another network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        why = listed(reasons) or f"  {str(error).splitlines()[1].strip()}"
        raise CheckpointError(f"the weights in {path} are those of another network:\n{why}") from error


def fill_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], path: Path) -> None:
    """Loads the state of the checkpoint at `path` into an optimizer.

    Raises:
        CheckpointError: the state is that of other parameters; torch itself would fail in the next step, or not at all.
    """
    why = None
    try:
        optimizer.load_state_dict(dict(state))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        why = str(error)
    for parameter, values in () if why else optimizer.state.items():
        if "step" not in values or any(_shape(values.get(name)) != parameter.shape for name in _MOMENTS):
            why = f"there is no state for a parameter of shape {tuple(parameter.shape)}"
    if why:
        raise CheckpointError(f"the optimizer state in {path} is that of another network: {why}")


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None
