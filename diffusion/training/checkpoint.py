"""Checkpoints: state dicts, the configuration as a dictionary, a format number; written whole, no pickled classes.

The configuration holds every option of every mixer, so that a checkpoint keeps its meaning when a default changes.
Files of older formats are brought to the present one when they are read (`diffusion.training.migrations`).
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
# What drawing clips and beginning another run need, and what continuing a run needs.
WEIGHTS = ("config", "step", "fps", "average")
WHOLE = (*WEIGHTS, "network", "optimizer")
_MOMENTS = ("exp_avg", "exp_avg_sq")
SHIPPED = Path(__file__).parents[1] / "checkpoints"


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


def load(path: Path, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU, in the present format.

    Args:
        parts: what it must hold, `WEIGHTS` or `WHOLE`.
    Raises:
        CheckpointError: not a checkpoint, a damaged one, one of a newer format, or one without these parts.
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
        raise CheckpointError(f"{path} has format {found} and is not as that format prescribes: {error}") from error


def config_of(content: Mapping[str, Any], path: Path) -> TrainConfig:
    """The configuration in the checkpoint at `path`; fields that are younger than the file have their defaults.

    Raises:
        CheckpointError: it is not one that this version knows.
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
            # Torch's own message advises to read the file without that check, which can run whatever code it holds.
            foreign = "GLOBAL" in str(error) or "global" in str(error)
            why = "it holds more than tensors and plain values" if foreign else "it cannot be decoded"
            raise _not_ours(path, why) from error
        except MemoryError:
            raise
        except Exception as error:  # a torn or foreign file fails in as many ways as there are formats
            raise _not_ours(path, str(error).partition("\n")[0] or "the file ends too soon") from error


def _not_ours(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a checkpoint of ours, or is damaged: {why}; use a checkpoint.pt or weights.pt that zoo train "
        "wrote"
    )


def _require(content: Mapping[str, Any], parts: Sequence[str], path: Path) -> None:
    if missing := [part for part in parts if part not in content]:
        hint = ""
        if parts == WHOLE and not set(missing) & set(WEIGHTS):
            hint = (
                ". It holds averaged weights alone, as weights.pt does: zoo sample and --start take it, and no run can "
                "be continued from it"
            )
        raise CheckpointError(f"{path} is not a whole checkpoint: it lacks {', '.join(missing)}{hint}")
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


def fill_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], path: Path) -> None:
    """Gives an optimizer its state of the checkpoint at `path`.

    Raises:
        CheckpointError: it is the state of an optimizer of other parameters, which torch itself would notice in the
            next step, if at all.
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
        raise CheckpointError(f"the state of the optimizer in {path} is that of another network: {why}")


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None
