"""The state space models that a shell can surround, S4D and S6, with the same functions for both."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

from temporal_zoo.mixers import _diagonal
from temporal_zoo.mixers._diagonal import DiagonalCore
from temporal_zoo.mixers._selective import SelectiveCore
from temporal_zoo.ops.selective_scan import selective_scan

Name = Literal["s4d", "s6"]
Core = DiagonalCore | SelectiveCore


class Input(NamedTuple):
    """What one direction of a layer evaluates: a core on u, (rows, frames, channels)."""

    core: Core
    u: Tensor
    reverse: bool = False


def check_state(name: Name, state: int) -> None:
    """Raises: ConfigError when this core cannot have a state of this size."""
    if name == "s4d":
        _diagonal.check_state(state)


def new(name: Name, channels: int, state: int, rank: int, *, spread_dt: bool = True) -> Core:
    """A core with its initial weights.

    Args:
        channels: width of u.
        state: size of the state per channel.
        rank, spread_dt: the step sizes of S6, see `SelectiveCore`; those of S4D do not depend on the input.
    """
    if name == "s4d":
        return DiagonalCore(channels, state, "lin", "zoh")
    return SelectiveCore(channels, state, rank, spread_dt=spread_dt)


def no_decay(cores: dict[str, Core]) -> tuple[str, ...]:
    """Names of the parameters without weight decay; `cores` holds each core under its name in the mixer."""
    return tuple(f"{place}.{parameter}" for place, core in cores.items() for parameter in core.NO_DECAY)


def run(inputs: Sequence[Input], gate: Tensor | None, lengths: Tensor | None) -> Tensor:
    """The sum of one or two directions over whole rows times silu(gate), (rows, frames, channels).

    The cores are of one kind.
    """
    selective = [core.direction(u, reverse=reverse) for core, u, reverse in inputs if isinstance(core, SelectiveCore)]
    if selective:
        return selective_scan(selective, gate, lengths=lengths)
    outputs = [
        _diagonal.run(u, [core], [reverse], lengths) for core, u, reverse in inputs if isinstance(core, DiagonalCore)
    ]
    return _gated(functools.reduce(torch.add, outputs), gate)


def run_chunk(each: Input, gate: Tensor | None, memory: Tensor | None) -> tuple[Tensor, Tensor]:
    """One direction over one chunk of frames, from the memory before it; also returns the memory after it."""
    core, u, reverse = each
    if isinstance(core, SelectiveCore):
        y, (memory,) = selective_scan([core.direction(u, reverse=reverse)], gate, initial=(memory,), return_final=True)
        return y, memory
    y, state = _diagonal.run_chunk(u, core, reverse, None if memory is None else _diagonal.DiagonalState(memory))
    return _gated(y, gate), state.modes


def empty_memory(core: Core, rows: int, device: Any, dtype: torch.dtype) -> Tensor:
    """The memory before the first frame, zeros: (rows, channels, state), for S4D complex and half of it."""
    wide = torch.promote_types(dtype, torch.float32)
    if isinstance(core, DiagonalCore):
        return torch.zeros(rows, *core.A_imag.shape, device=device, dtype=wide.to_complex())
    return torch.zeros(rows, *core.A_log.shape, device=device, dtype=wide)


def _gated(y: Tensor, gate: Tensor | None) -> Tensor:
    return y if gate is None else y * silu(gate)
