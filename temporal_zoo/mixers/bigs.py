"""A gated state space model over frames in both directions, which are multiplied (BiGS)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from temporal_zoo.mixers import _cores
from temporal_zoo.mixers._gss_shell import CoreBranch, GssConfig, GssShell
from temporal_zoo.registry import register


@register(
    "bigs",
    summary="gated state space model, product of both directions of time",
    paper="arXiv:2212.10544; as a temporal layer arXiv:2403.07711",
    time="T",
    memory="T",
)
class Bigs(GssShell):
    """The product of two state space models, one of them in reverse order, and of a gate without memory.

        f = after core(gelu(before x));  f' = after' core'(gelu(before' x)), core' starting at the last real frame
        y = out( gelu(shortcut x) * gelu(up (f * f')) )

    This is the layer in the code of arXiv:2403.07711 (after BiGS, arXiv:2212.10544), where the cores are S4D and the
    gates have 3 dim channels (58,304 parameters at width 64), or the cores are S6 and they have 512 (flavour `s6`;
    123,456 parameters).  The directions are multiplied, so no sum of sweeps over chunks gives the output.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(GssConfig):
        """Options of `bigs`."""

    config: Config
    causal = False

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        self.branch_b = CoreBranch(dim, config)
        self.no_decay += _cores.no_decay({"branch_b.core": self.branch_b.core})

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.gated(x, self.branch.run(x, lengths) * self.branch_b.run(x, lengths, reverse=True))
