"""A gated state space model over frames, in time order (GSS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.interface import StatefulMixer
from temporal_zoo.mixers import _cores
from temporal_zoo.mixers._gss_shell import GssConfig, GssShell
from temporal_zoo.registry import register
from temporal_zoo.streaming import State, register_state


@register_state
@dataclass(frozen=True)
class GssState(State):
    """The state between two chunks."""

    memory: Tensor  # of the core: (rows, dim, state) for S6, complex (rows, dim, state / 2) for S4D


@register(
    "gss",
    summary="gated state space model, in time order only",
    paper="arXiv:2206.13947; as a temporal layer arXiv:2403.07711",
    time="T",
    memory="T",
)
class Gss(GssShell, StatefulMixer):
    """A state space model between two linear maps, multiplied by a gate without memory (arXiv:2206.13947).

        f = after core(gelu(before x));  y = out( gelu(shortcut x) * gelu(up f) )

    This is the layer in the code of arXiv:2403.07711, where `core` is S4D and the gates have 3 dim channels (47,808
    parameters at width 64), or `core` is S6 and they have 512 (flavour `s6`; 111,424 parameters).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(GssConfig):
        """Options of `gss`."""

    config: Config
    causal = True
    passes = (False,)

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.gated(x, self.branch.run(x, lengths))

    def init_state(self, rows: int, *, device: Any = None, dtype: torch.dtype | None = None) -> GssState:
        weight = self.out.weight
        return GssState(_cores.empty_memory(self.branch.core, rows, device or weight.device, dtype or weight.dtype))

    def mix_chunk(self, x: Tensor, state: GssState | None, *, reverse: bool = False) -> tuple[Tensor, GssState]:
        if reverse:
            raise InvalidInput("gss has no backward sweep; its passes are (False,)")
        f, memory = self.branch.run_chunk(x, None if state is None else state.memory)
        return self.gated(x, f), GssState(memory)
