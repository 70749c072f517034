"""Mamba over frames, in time order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from temporal_zoo.errors import InvalidInput
from temporal_zoo.interface import StatefulMixer
from temporal_zoo.mixers import _cores, _mamba_shell
from temporal_zoo.registry import register


@register(
    "mamba",
    summary="selective state space model, in time order only",
    paper="arXiv:2312.00752; as a temporal layer arXiv:2403.07711",
    time="T",
    memory="T",
)
class Mamba(StatefulMixer):
    """A gated selective scan in time order (arXiv:2312.00752; the one-directional layer of arXiv:2403.07711, table 4).

        [a, z] = in_proj x;  u = silu(conv a);  y = out_proj( S6(u) * silu(z) )

    The default is the layer of the video paper: projections with biases, step sizes of rank 2 dim / 16 (33,984
    parameters at width 64).  The flavour `literal` is the layer of mamba_ssm: no such biases, rank dim / 16
    (32,640 parameters).  With `core=s4d` it is the "Mamba" layer of the video paper's code on S4D (29,888 parameters).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(_mamba_shell.MambaConfig):
        """Options of `mamba`."""

        flavours: ClassVar[dict[str, str]] = {
            "paper": "dt_rank=inner:projection_bias=yes",
            "literal": "dt_rank=dim:projection_bias=no",
        }
        examples: ClassVar[tuple[str, ...]] = (
            flavours["literal"],
            "state=8:conv=2",
            "state=3:conv=1:expand=1",
            "core=s4d:state=4",
        )

    config: Config
    causal = True
    passes = (False,)

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        inner = config.inner(dim)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=config.projection_bias)
        self.conv1d = _mamba_shell.short_conv(inner, config.conv)
        self.core = config.new_core(dim)
        self.out_proj = nn.Linear(inner, dim, bias=config.projection_bias)
        self.no_decay = _cores.no_decay({"core": self.core})

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return _mamba_shell.run(x, self.in_proj, [self._way()], self.out_proj, lengths)

    def init_state(self, rows: int, *, device: Any = None, dtype: torch.dtype | None = None) -> _mamba_shell.MambaState:
        return _mamba_shell.init_state(rows, self.core, self.config.conv, self.in_proj, device, dtype)

    def mix_chunk(
        self, x: Tensor, state: _mamba_shell.MambaState | None, *, reverse: bool = False
    ) -> tuple[Tensor, _mamba_shell.MambaState]:
        if reverse:
            raise InvalidInput("mamba has no backward sweep; its passes are (False,)")
        a, z = self.in_proj(x).chunk(2, dim=-1)
        y, state = _mamba_shell.run_chunk(a, z, self._way(), state)
        return self.out_proj(y), state

    def _way(self) -> _mamba_shell.Way:
        return _mamba_shell.Way(self.core, self.conv1d, self.config.conv)
