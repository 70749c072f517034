"""S4D over frames, in one or both directions of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from temporal_zoo.config import ConfigError, option
from temporal_zoo.interface import Mixer, StatefulMixer
from temporal_zoo.mixers import _diagonal
from temporal_zoo.ops import _transforms
from temporal_zoo.registry import register


@register(
    "s4d",
    summary="diagonal state space model, in one or both directions of time",
    paper="arXiv:2206.11893; over video frames arXiv:2403.07711",
    time="T",
    memory="T",
)
class S4D(StatefulMixer):
    """A linear time-invariant recurrence per channel and direction, then mixing of channels frame by frame.

        s = S4D(x), s' = S4D'(x) in reverse order, starting at the last real frame
        glu:  s <- GLU(W gelu(s) + b), with weights per direction
        y = s + s', or with an MLP  y = W2 gelu(W1 [gelu](s + s' or concat(s, s')))

    The default has 20,992 parameters at width 64.  The flavours are the layers in the code of arXiv:2403.07711: `glu`
    (the default) and `mlp` are those of its current code ("mixing GLU" and "mixing MLP"), `v1` is the layer of the
    paper's first versions.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of `s4d`."""

        state: int = option(16, "size of the state per channel; even", least=2)
        init: _diagonal.Init = option("lin", "initial modes: equally spaced (S4D-Lin) or inverse (S4D-Inv)")
        discretisation: _diagonal.Discretisation = option("zoh", "zero-order hold or bilinear")
        bidirectional: bool = option(True, "a second recurrence in reverse order")
        glu: bool = option(True, "a gated linear unit after each direction")
        merge: Literal["sum", "concat"] = option("sum", "sum or concatenation of the directions; concat needs an MLP")
        mlp: int = option(0, "width of an MLP on the merged directions; 0 for none", least=0)
        mlp_gelu: bool = option(False, "GELU before the MLP")

        flavours: ClassVar[dict[str, str]] = {
            "glu": "state=16:glu=yes:merge=sum:mlp=0",
            "mlp": "state=16:glu=no:merge=concat:mlp=512:mlp_gelu=yes",
            "v1": "state=512:glu=yes:merge=sum:mlp=512",
        }
        examples: ClassVar[tuple[str, ...]] = (
            "state=4:init=inv:discretisation=bilinear",
            "state=8:bidirectional=no",
            "state=4:glu=no",
            "state=4:glu=no:merge=concat:mlp=24:mlp_gelu=yes",
            "state=4:mlp=24",
        )

        def __post_init__(self) -> None:
            super().__post_init__()
            _diagonal.check_state(self.state)
            if not self.mlp and self.merge == "concat":
                raise ConfigError(
                    "Config.merge is concat, which needs an MLP to return to width dim; set mlp, for example 512"
                )
            if not self.mlp and self.mlp_gelu:
                raise ConfigError("Config.mlp_gelu is yes without an MLP; set mlp, for example 512")

    config: Config
    # For the default options; the constructor sets both for other options.
    causal = False
    passes: tuple[bool, ...] = (False, True)

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        both = config.bidirectional
        self.causal = not both
        # The MLP after the sum is not linear, so the outputs of two sweeps add up only without it.
        self.passes = (False,) if not both else () if config.mlp else (False, True)
        names = ("core", "core_b") if both else ("core",)
        self.no_decay = tuple(f"{name}.{parameter}" for name in names for parameter in _diagonal.DiagonalCore.NO_DECAY)
        self.core, self.glu = self._direction()
        self.core_b: _diagonal.DiagonalCore | None = None
        self.glu_b: nn.Module | None = None
        if both:
            self.core_b, self.glu_b = self._direction()
        merged = dim * len(names) if config.merge == "concat" else dim
        self.mlp = (
            nn.Sequential(
                nn.GELU() if config.mlp_gelu else nn.Identity(),
                nn.Linear(merged, config.mlp),
                nn.GELU(),
                nn.Linear(config.mlp, dim),
            )
            if config.mlp
            else nn.Identity()
        )

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        ways = self._ways()
        if self.config.merge == "sum" and not self.config.glu:
            cores, _, reverse = zip(*ways, strict=True)
            return self.mlp(_diagonal.run(x, cores, reverse, lengths))
        ys = [self._gated(_diagonal.run(x, [core], [reverse], lengths), glu) for core, glu, reverse in ways]
        return self.mlp(torch.cat(ys, dim=-1) if self.config.merge == "concat" else sum(ys))

    def init_state(self, rows: int, *, device: Any = None, dtype: torch.dtype | None = None) -> _diagonal.DiagonalState:
        return _diagonal.init_state(rows, self.core, device, dtype)

    def mix_chunk(
        self, x: Tensor, state: _diagonal.DiagonalState | None, *, reverse: bool = False
    ) -> tuple[Tensor, _diagonal.DiagonalState]:
        core, glu, _ = self._ways()[reverse]
        y, state = _diagonal.run_chunk(x, core, reverse, state)
        return self.mlp(self._gated(y, glu)), state

    def _ways(self) -> list[tuple[_diagonal.DiagonalCore, nn.Module | None, bool]]:
        """Core, gated unit and, as a bool, reverse order, for every direction."""
        back = [] if self.core_b is None else [(self.core_b, self.glu_b, True)]
        return [(self.core, self.glu, False), *back]

    def _direction(self) -> tuple[_diagonal.DiagonalCore, nn.Module | None]:
        config = self.config
        core = _diagonal.DiagonalCore(self.dim, config.state, config.init, config.discretisation)
        return core, nn.Linear(self.dim, 2 * self.dim) if config.glu else None

    @staticmethod
    def _gated(y: Tensor, glu: nn.Module | None) -> Tensor:
        return y if glu is None else _glu(glu(F.gelu(y)))


def _glu(y: Tensor) -> Tensor:
    """The first half of the channels times the sigmoid of the second."""
    if _transforms.active() is None:
        return F.glu(y, dim=-1)
    # torch cannot differentiate the forward-mode derivative of its `glu`, which stores less.
    value, gate = y.chunk(2, dim=-1)
    return value * gate.sigmoid()
