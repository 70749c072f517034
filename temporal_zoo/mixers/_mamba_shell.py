"""Short convolution and core per direction, and the gate: the common parts of `mamba` and `bimamba`.

Letters: r rows, t frames, d dim, e inner width (expand * dim), n state, k rank of dt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from temporal_zoo.config import ConfigError, option
from temporal_zoo.errors import InvalidInput
from temporal_zoo.interface import Mixer
from temporal_zoo.mixers import _cores
from temporal_zoo.mixers._layers import plain
from temporal_zoo.mixers._selective import SelectiveCore
from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.causal_conv import Filter, causal_conv
from temporal_zoo.ops.causal_conv.reference import surround
from temporal_zoo.ops.selective_block import Affine, Branch, selective_block
from temporal_zoo.streaming import State, register_state


@dataclass(frozen=True, kw_only=True)
class MambaConfig(Mixer.Config):
    """The options that `mamba` and `bimamba` share; the defaults are those of arXiv:2403.07711 and its code."""

    state: int = option(16, "size of the state per channel", least=1)
    conv: int = option(4, "width of the short causal convolution, in frames", least=1)
    expand: int = option(2, "inner width as a multiple of dim", least=1)
    dt_rank: Literal["inner", "dim"] = option(
        "inner", "rank of the step sizes: the inner width / 16, or dim / 16 (Mamba, Vim); rounded up"
    )
    projection_bias: bool = option(True, "biases in the projections in and out (Mamba, Vim: no)")
    core: _cores.Name = option("s6", "state space model: the selective S6, or S4D, which is the same at every frame")

    of_s6: ClassVar[tuple[str, ...]] = ("dt_rank",)  # options that S4D does not have

    def __post_init__(self) -> None:
        super().__post_init__()
        _cores.check_state(self.core, self.state)
        for name in self.of_s6 if self.core == "s4d" else ():
            if (value := getattr(self, name)) != type(self).__dataclass_fields__[name].default:
                raise ConfigError(
                    f"Config.{name} is {value} with core=s4d, whose step sizes are not projected from the input; leave "
                    f"out {name}, or choose core=s6"
                )

    def inner(self, dim: int) -> int:
        """Channels between the two projections of a mixer of width `dim`."""
        return self.expand * dim

    def rank(self, dim: int) -> int:
        """Rank of the step sizes of a mixer of width `dim`."""
        return math.ceil((self.inner(dim) if self.dt_rank == "inner" else dim) / 16)

    def new_core(self, dim: int, *, spread_dt: bool = True) -> _cores.Core:
        """The core of one direction of a mixer of width `dim`."""
        return _cores.new(self.core, self.inner(dim), self.state, self.rank(dim), spread_dt=spread_dt)


class Way(NamedTuple):
    """One direction of time: a short convolution over `width` frames, then a core."""

    core: _cores.Core
    conv: nn.Conv1d
    width: int
    reverse: bool = False

    def fuses(self) -> bool:
        """Whether a `Branch` describes this direction completely, so that no layer must be called."""
        if not isinstance(self.core, SelectiveCore):
            return False
        x_proj, dt_proj = self.core.x_proj, self.core.dt_proj
        return self._reads_conv() and plain(x_proj, dt_proj) and x_proj.bias is None and dt_proj.bias is not None

    def branch(self) -> Branch:
        """The weights of this direction for `selective_block`."""
        core = self.core
        assert isinstance(core, SelectiveCore)
        assert self.conv.bias is not None
        return Branch(
            conv_weight=self.conv.weight.squeeze(1),
            conv_bias=self.conv.bias,
            x_proj=core.x_proj.weight,
            dt_proj=core.dt_proj.weight,
            dt_bias=core.dt_proj.bias,
            A=-torch.exp(core.A_log),
            skip=core.D,
            reverse=self.reverse,
        )

    def convolved(self, a: Tensor, start: Tensor | None, lengths: Tensor | None) -> Tensor:
        """SiLU of the convolution of a, (rows, frames, e); `start` holds the inputs before its first frame."""
        if self._reads_conv():
            taps = Filter(self.conv.weight.squeeze(1), self.conv.bias, self.reverse)
            (u,) = causal_conv(a, [taps], silu=True, lengths=lengths, initial=(start,))
            return u
        y = self._in_order(self.conv(self._in_order(surround(a, self.width, start, lengths, self.reverse)).mT).mT)
        if y.shape != a.shape:
            name = type(self.conv).__name__
            raise InvalidInput(
                f"the short convolution, conv1d, is a {name} that returns {tuple(y.shape)} for {tuple(a.shape)} and "
                f"{self.width - 1} earlier frames; it must keep every channel and use these earlier frames"
            )
        return fill_padding(silu(y), lengths)

    def following(self, a: Tensor, start: Tensor | None) -> Tensor:
        """The last inputs of the convolution, (rows, width - 1, e): the `start` of the next chunk."""
        inputs, size = surround(a, self.width, start, None, self.reverse), self.width - 1
        return (inputs[:, :size] if self.reverse else inputs[:, a.shape[1] :]).clone()

    def _reads_conv(self) -> bool:
        """Whether the convolution's weights define it completely."""
        conv = self.conv
        return (
            plain(conv) and conv.bias is not None and conv.weight.shape[1:] == (1, self.width) and conv.dilation == (1,)
        )

    def _in_order(self, x: Tensor) -> Tensor:
        """Converts between the order of time and the order in which this direction visits the frames."""
        return x.flip(1) if self.reverse else x


@register_state
@dataclass(frozen=True)
class MambaState(State):
    """The state of one direction between two chunks."""

    inputs: Tensor  # (rows, conv - 1, e): the last inputs of the convolution
    memory: Tensor  # the state of the core: (rows, e, n) of S6, complex (rows, e, n / 2) of S4D


def short_conv(channels: int, width: int) -> nn.Conv1d:
    """A depthwise convolution over `width` frames with PyTorch's initial weights, as in mamba_ssm."""
    return nn.Conv1d(channels, channels, width, groups=channels)


def run(
    x: Tensor,
    in_proj: nn.Linear,
    ways: Sequence[Way],
    out_proj: nn.Linear,
    lengths: Tensor | None,
    *,
    scale: float = 1.0,
) -> Tensor:
    """The whole layer; the sum of its directions is multiplied by `scale`.  It is fused where all layers are plain."""
    if plain(in_proj, out_proj) and all(way.fuses() for way in ways):
        ends = Affine(in_proj.weight, in_proj.bias), Affine(scaled_weight(out_proj, scale), out_proj.bias)
        return selective_block(x, ends[0], [way.branch() for way in ways], ends[1], lengths=lengths)
    a, gate = in_proj(x).chunk(2, dim=-1)
    inputs = [_cores.Input(way.core, way.convolved(a, None, lengths), way.reverse) for way in ways]
    y = _cores.run(inputs, gate, lengths)
    return out_proj(y if scale == 1 else y * scale)


def scaled_weight(out_proj: nn.Linear, scale: float) -> Tensor:
    """The weight of a projection whose inputs are multiplied by `scale`."""
    return out_proj.weight if scale == 1 else out_proj.weight * scale


def init_state(
    rows: int, core: _cores.Core, width: int, in_proj: nn.Linear, device: Any, dtype: torch.dtype | None
) -> MambaState:
    """Zeros, for frames of `dtype` on `device`; by default those of the weights of `in_proj`."""
    weight = in_proj.weight
    device, dtype = device or weight.device, dtype or weight.dtype
    inputs = torch.zeros(rows, width - 1, core.D.shape[0], device=device, dtype=dtype)
    return MambaState(inputs, _cores.empty_memory(core, rows, device, dtype))


def run_chunk(a: Tensor, gate: Tensor, way: Way, state: MambaState | None) -> tuple[Tensor, MambaState]:
    """One way between the projections, for one chunk of frames and with the state before it.

    Args:
        a, gate: (rows, frames, e), the two halves of the projection in.
    """
    inputs, memory = (None, None) if state is None else (state.inputs, state.memory)
    y, memory = _cores.run_chunk(_cores.Input(way.core, way.convolved(a, inputs, None), way.reverse), gate, memory)
    return y, MambaState(way.following(a, inputs), memory)
