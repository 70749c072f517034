"""Mamba over frames in both directions, with shared projections and gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from temporal_zoo.config import option
from temporal_zoo.errors import InvalidInput
from temporal_zoo.interface import StatefulMixer
from temporal_zoo.mixers import _cores, _mamba_shell
from temporal_zoo.mixers._layers import plain
from temporal_zoo.registry import register


@register(
    "bimamba",
    summary="selective state space model in both directions of time",
    paper="arXiv:2403.07711; the topology is that of arXiv:2401.09417",
    time="T",
    memory="T",
)
class BiMamba(StatefulMixer):
    """Two selective scans, one in time order and one in reverse order, with shared projections and a shared gate.

        [a, z] = in_proj x;  u = silu(conv a);  u' = silu(conv' a), conv' over later frames
        y = out_proj( (S6(u) + S6'(u')) * silu(z) ), S6' starting at the last real frame

    The default is the layer of arXiv:2403.07711 as its code has it (43,072 parameters at width 64): projections with
    biases, step sizes of rank 2 dim / 16, a plain sum of the directions.  The flavour `vim` is the bidirectional "v2"
    of arXiv:2401.09417 as released (40,704 parameters): no such biases, rank dim / 16, the mean of the directions, and
    spread initial step sizes in the forward direction only.  With `core=s4d` it is the "Vim" layer of the paper's code
    on S4D (34,880 parameters at width 64).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(_mamba_shell.MambaConfig):
        """Options of `bimamba`."""

        merge: Literal["sum", "mean"] = option("sum", "sum or mean of the two directions (Vim: mean)")
        backward_dt: Literal["spread", "generic"] = option(
            "spread", "initial step sizes of the backward direction: spread as forward, or those of a plain layer (Vim)"
        )
        of_s6: ClassVar[tuple[str, ...]] = ("dt_rank", "backward_dt")
        flavours: ClassVar[dict[str, str]] = {
            "paper": "dt_rank=inner:projection_bias=yes:merge=sum:backward_dt=spread",
            "vim": "dt_rank=dim:projection_bias=no:merge=mean:backward_dt=generic",
        }
        examples: ClassVar[tuple[str, ...]] = (
            flavours["vim"],
            "state=8:conv=2",
            "state=3:conv=1:expand=1:merge=mean",
            "core=s4d:state=4",
            "core=s4d:state=2:conv=1:expand=1:merge=mean:projection_bias=no",
        )

    config: Config
    causal = False
    passes = (False, True)

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        inner = config.inner(dim)
        self.scale = 0.5 if config.merge == "mean" else 1.0
        self.in_proj = nn.Linear(dim, 2 * inner, bias=config.projection_bias)
        self.conv1d = _mamba_shell.short_conv(inner, config.conv)
        self.conv1d_b = _mamba_shell.short_conv(inner, config.conv)
        self.core = config.new_core(dim)
        self.core_b = config.new_core(dim, spread_dt=config.backward_dt == "spread")
        self.out_proj = nn.Linear(inner, dim, bias=config.projection_bias)
        self.no_decay = _cores.no_decay({"core": self.core, "core_b": self.core_b})

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return _mamba_shell.run(x, self.in_proj, self._ways(), self.out_proj, lengths, scale=self.scale)

    def init_state(self, rows: int, *, device: Any = None, dtype: torch.dtype | None = None) -> _mamba_shell.MambaState:
        return _mamba_shell.init_state(rows, self.core, self.config.conv, self.in_proj, device, dtype)

    def mix_chunk(
        self, x: Tensor, state: _mamba_shell.MambaState | None, *, reverse: bool = False
    ) -> tuple[Tensor, _mamba_shell.MambaState]:
        if not plain(self.out_proj):
            raise InvalidInput(
                "bimamba.mix_chunk adds its two sweeps and needs a plain nn.Linear as out_proj; this is a "
                f"{type(self.out_proj).__name__}, or has hooks: call the mixer on whole clips, or merge the adapter"
            )
        a, z = self.in_proj(x).chunk(2, dim=-1)
        y, state = _mamba_shell.run_chunk(a, z, self._ways()[reverse], state)
        # The sweeps are added, so only one of them may add the bias.
        bias = None if reverse else self.out_proj.bias
        return nn.functional.linear(y, _mamba_shell.scaled_weight(self.out_proj, self.scale), bias), state

    def _ways(self) -> tuple[_mamba_shell.Way, _mamba_shell.Way]:
        return (
            _mamba_shell.Way(self.core, self.conv1d, self.config.conv),
            _mamba_shell.Way(self.core_b, self.conv1d_b, self.config.conv, reverse=True),
        )
