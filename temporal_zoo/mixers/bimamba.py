"""Mamba over frames in both directions, with shared projections and gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from temporal_zoo.config import option
from temporal_zoo.interface import StatefulMixer
from temporal_zoo.mixers import _selective
from temporal_zoo.ops.selective_block import Branch, selective_block
from temporal_zoo.registry import register


@register(
    "bimamba",
    summary="selective state space model in both directions of time",
    paper="arXiv:2403.07711; the topology is that of arXiv:2401.09417",
    time="T",
    memory="T",
)
class BiMamba(StatefulMixer):
    """Two selective scans, one in time order and one against it, between shared projections and under a shared gate.

        [a, z] = in_proj x;  u = silu(conv a);  u' = silu(conv' a), conv' looking ahead
        y = out_proj( (S6(u) + S6'(u')) * silu(z) ), S6' starting at the last real frame

    The default is the layer of arXiv:2403.07711 as its code has it (43,072 parameters at width 64): projections with
    biases, step sizes of rank 2 dim / 16, a plain sum of the directions.  The flavour `vim` is the bidirectional "v2"
    of arXiv:2401.09417 as released (40,704 parameters): no such biases, rank dim / 16, the mean of the directions, and
    step sizes spread at the start in the forward direction only.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(_selective.Options):
        """Options of `bimamba`."""

        merge: Literal["sum", "mean"] = option("sum", "how the two directions are added up (Vim: mean)")
        backward_dt: Literal["spread", "generic"] = option(
            "spread", "step sizes of the backward direction at the start: spread as forward, or a plain layer's (Vim)"
        )
        flavours: ClassVar[dict[str, str]] = {
            "paper": "dt_rank=inner:projection_bias=yes:merge=sum:backward_dt=spread",
            "vim": "dt_rank=dim:projection_bias=no:merge=mean:backward_dt=generic",
        }
        examples: ClassVar[tuple[str, ...]] = (flavours["vim"], "state=8:conv=2", "state=3:conv=1:expand=1:merge=mean")

    causal = False
    passes = (False, True)
    no_decay = ("core.A_log", "core.D", "core.dt_proj.bias", "core_b.A_log", "core_b.D", "core_b.dt_proj.bias")

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        inner = config.inner(dim)
        self.share = 0.5 if config.merge == "mean" else 1.0
        self.in_proj = nn.Linear(dim, 2 * inner, bias=config.projection_bias)
        self.conv1d = _selective.short_conv(inner, config.conv)
        self.conv1d_b = _selective.short_conv(inner, config.conv)
        self.core = _selective.Core(inner, config.state, config.rank(dim))
        self.core_b = _selective.Core(inner, config.state, config.rank(dim), spread_dt=config.backward_dt == "spread")
        self.out_proj = nn.Linear(inner, dim, bias=config.projection_bias)

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        ends = _selective.affine(self.in_proj), _selective.affine(self.out_proj, self.share)
        return selective_block(x, ends[0], self._branches(), ends[1], lengths=lengths)

    def mix_chunk(
        self, x: Tensor, state: _selective.State | None, *, reverse: bool = False
    ) -> tuple[Tensor, _selective.State]:
        a, z = self.in_proj(x).chunk(2, dim=-1)
        y, state = _selective.run_chunk(a, z, self._branches()[reverse], state)
        # The sweeps add up, so only one of them may bring the bias.
        bias = None if reverse else self.out_proj.bias
        return nn.functional.linear(y, _selective.affine(self.out_proj, self.share).weight, bias), state

    def _branches(self) -> tuple[Branch, Branch]:
        return self.core.branch(self.conv1d, reverse=False), self.core_b.branch(self.conv1d_b, reverse=True)


def to_vim(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of a `BiMamba` under the names of Vim's "v2" layer; the flavour `vim` fits it as released."""
    return _selective.renamed(state, _vim_name)


def from_vim(state: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `to_vim`: what `BiMamba.load_state_dict` takes."""
    ours = ("A_log", "D", "x_proj.weight", "dt_proj.weight", "dt_proj.bias")
    names = {_vim_name(f"{core}.{name}"): f"{core}.{name}" for core in ("core", "core_b") for name in ours}
    return _selective.renamed(state, lambda name: names.get(name, name))


def _vim_name(name: str) -> str:
    core, _, rest = name.partition(".")
    if core == "core":
        return rest
    if core != "core_b":
        return name
    parameter, dot, part = rest.partition(".")
    return "A_b_log" if parameter == "A_log" else f"{parameter}_b{dot}{part}"
