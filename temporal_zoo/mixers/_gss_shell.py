"""The gates around state space models in `gss` and `bigs`, which differ in their directions only.

Letters: c dim, m width of the gates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import gelu

from temporal_zoo.config import option
from temporal_zoo.interface import Mixer
from temporal_zoo.mixers import _cores


@dataclass(frozen=True, kw_only=True)
class GssConfig(Mixer.Config):
    """The options that `gss` and `bigs` share; the defaults are those of the S4D layers in arXiv:2403.07711's code."""

    core: _cores.Name = option("s4d", "state space model: S4D, or the selective S6 of Mamba")
    state: int = option(16, "size of the state per channel; even for S4D", least=1)
    width: int = option(0, "width of the two gates, which are multiplied; 0 for 3 dim", least=0)

    flavours: ClassVar[dict[str, str]] = {"s4d": "core=s4d:state=16:width=0", "s6": "core=s6:state=16:width=512"}
    examples: ClassVar[tuple[str, ...]] = ("core=s6:state=3:width=24", "state=4:width=5")

    def __post_init__(self) -> None:
        super().__post_init__()
        _cores.check_state(self.core, self.state)


class CoreBranch(nn.Module):
    """One direction: x -> after core(gelu(before x)), all of width dim."""

    def __init__(self, dim: int, config: GssConfig) -> None:
        super().__init__()
        self.before = nn.Linear(dim, dim)
        self.core = _cores.new(config.core, dim, config.state, math.ceil(dim / 16))
        self.after = nn.Linear(dim, dim)

    def run(self, x: Tensor, lengths: Tensor | None, *, reverse: bool = False) -> Tensor:
        """Evaluates whole rows."""
        return self.after(_cores.run([self._input(x, reverse)], None, lengths))

    def run_chunk(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """Evaluates one chunk of frames in time order, from the memory before it; also returns the memory after it."""
        y, memory = _cores.run_chunk(self._input(x, False), None, memory)
        return self.after(y), memory

    def _input(self, x: Tensor, reverse: bool) -> _cores.Input:
        return _cores.Input(self.core, gelu(self.before(x)), reverse)


class GssShell(Mixer):
    """Two gates that are multiplied: out( gelu(shortcut x) * gelu(up f) ), with f from one or two `CoreBranch`."""

    config: GssConfig

    def __init__(self, dim: int, config: GssConfig, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        width = config.width or 3 * dim
        self.branch = CoreBranch(dim, config)
        self.shortcut = nn.Linear(dim, width)
        self.up = nn.Linear(dim, width)
        self.out = nn.Linear(width, dim)
        self.no_decay = _cores.no_decay({"branch.core": self.branch.core})

    def gated(self, x: Tensor, f: Tensor) -> Tensor:
        """The output for the frames x and what the branches compute from them, both (rows, frames, dim)."""
        return self.out(gelu(self.shortcut(x)) * gelu(self.up(f)))
