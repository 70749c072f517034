"""What the converters share: the result, the selection of a layer, and the comparison with our own parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from temporal_zoo.config import to_text
from temporal_zoo.errors import InvalidInput
from temporal_zoo.interface import Mixer
from temporal_zoo.registry import build
from temporal_zoo.spec import MixerSpec

# Buffers that the profiler thop leaves in every module; training never uses them.
_PROFILER = ("total_ops", "total_params")
_LISTED = 5  # names in one message


class ConversionError(InvalidInput):
    """A state dict does not hold the layer that the caller asks for; the message names the difference."""


@dataclass(frozen=True)
class Converted:
    """A mixer of ours in the form of plain values.

    spec: which mixer, with every option that differs from its default.
    dim: width of the frames.
    state: what `load_state_dict` of the mixer takes.
    dropped: names in the source that training never uses.
    """

    spec: MixerSpec
    dim: int
    state: dict[str, Tensor]
    dropped: tuple[str, ...] = ()

    def mixer(self) -> Mixer:
        """The mixer with these weights, on their device and in their dtype."""
        first = next(iter(self.state.values()))
        mixer = build(self.spec, self.dim).to(first.device, first.dtype)
        mixer.load_state_dict(self.state)
        return mixer


def layer_of(
    state: Mapping[str, Any], prefix: str, *, source: str, needs: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of one layer without their prefix, and the names of profiler buffers that are left out.

    Args:
        prefix: beginning of the names of the layer, such as "layers.0.mixer.".
        source: the layer, for messages.
        needs: names that every such layer has.

    Raises:
        ConversionError: the layer lacks one of them; the message lists prefixes that would fit.
    """
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    dropped = [name for name in inside if name.rpartition(".")[2] in _PROFILER]
    layer = {name: tensor for name, tensor in inside.items() if name not in dropped}
    if missing := [name for name in needs if name not in layer]:
        fitting = [name.removesuffix(needs[0]) for name in state if name.endswith(needs[0])]
        remedy = f"; choose a layer with prefix= one of {_names(map(repr, fitting))}" if any(fitting) else ""
        where = f" below {prefix!r}" if prefix else ""
        raise ConversionError(f"this is not {source}: there is no {_names(missing)}{where}{remedy}")
    if strange := [name for name, tensor in layer.items() if not isinstance(tensor, Tensor)]:
        raise ConversionError(f"{_names(strange)} of {source} must be tensors")
    return layer, dropped


def renamed(layer: Mapping[str, Tensor], name_of: Callable[[str], str]) -> dict[str, Tensor]:
    """The same tensors under other names."""
    return {name_of(name): tensor for name, tensor in layer.items()}


def converted(
    name: str, options: Mapping[str, Any], dim: int, state: Mapping[str, Tensor], *, source: str, dropped: list[str]
) -> Converted:
    """The result, after a comparison of names and shapes with those of our mixer.

    Raises:
        ConversionError: with every name that is missing, unknown or of another shape.
    """
    spec = MixerSpec(name, tuple((key, to_text(value)) for key, value in options.items())).canonical()
    with torch.device("meta"):
        expected = build(spec, dim).state_dict()
    problems = []
    if missing := expected.keys() - state.keys():
        problems.append(f"it lacks {_names(sorted(missing))}")
    if unknown := state.keys() - expected.keys():
        problems.append(f"it has {_names(sorted(unknown))}, which {name} has no place for")
    problems += [
        f"{key} has the shape {tuple(state[key].shape)} and should have {tuple(expected[key].shape)}"
        for key in expected.keys() & state.keys()
        if state[key].shape != expected[key].shape
    ]
    if problems:
        raise ConversionError(f"{source} cannot become {spec}: {'; '.join(problems)} (names of {name})")
    return Converted(spec, dim, dict(state), tuple(dropped))


def multiple(whole: int, part: int, what: str) -> int:
    """whole / part.  Raises: ConversionError when it is no whole number."""
    if not isinstance(part, int) or part < 1 or whole % part:
        raise ConversionError(f"{what}: {whole} is not a multiple of {part}")
    return whole // part


def rank_option(rank: int, inner: int, dim: int) -> str:
    """The option `dt_rank` of `mamba` and `bimamba` that gives this rank.

    Raises:
        ConversionError: neither does.
    """
    ranks = {"inner": math.ceil(inner / 16), "dim": math.ceil(dim / 16)}
    for option, value in ranks.items():
        if rank == value:
            return option
    raise ConversionError(
        f"the step sizes have rank {rank}; our mixers have rank {ranks['inner']} (a sixteenth of the inner width) or "
        f"{ranks['dim']} (a sixteenth of dim)"
    )


def _names(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
