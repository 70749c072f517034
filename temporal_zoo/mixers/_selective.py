"""Short convolution and selective scan per direction: what `mamba` and `bimamba` are both composed of.

Letters: r rows, t frames, d dim, e inner width (expand * dim), n state, k rank of dt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from temporal_zoo.config import option
from temporal_zoo.interface import Mixer
from temporal_zoo.ops.causal_conv import Filter, causal_conv
from temporal_zoo.ops.selective_scan import Direction, selective_scan

# Step sizes at the start: log-uniform between the first two, none below the floor (arXiv:2312.00752, section 3.6).
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


@dataclass(frozen=True, kw_only=True)
class Options(Mixer.Config):
    """The options that `mamba` and `bimamba` share; the defaults are those of arXiv:2403.07711 and its code."""

    state: int = option(16, "numbers of memory per channel", least=1)
    conv: int = option(4, "width of the short causal convolution, in frames", least=1)
    expand: int = option(2, "inner width as a multiple of dim", least=1)
    dt_rank: Literal["inner", "dim"] = option(
        "inner", "rank of the step sizes: a sixteenth of the inner width, or of dim (Mamba, Vim); rounded up"
    )
    projection_bias: bool = option(True, "biases in the projections in and out (Mamba, Vim: no)")

    def inner(self, dim: int) -> int:
        """Channels between the two projections of a mixer of width `dim`."""
        return self.expand * dim

    def rank(self, dim: int) -> int:
        """Rank of the step sizes of a mixer of width `dim`."""
        return math.ceil((self.inner(dim) if self.dt_rank == "inner" else dim) / 16)


class Core(nn.Module):
    """The selective state space model of one direction ("S6", arXiv:2312.00752, algorithm 2): u -> `Direction`.

        dt, B, C = split(x_proj u);  delta = softplus(dt_proj dt);  A = -exp(A_log)
        h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t];  y[t] = C[t] h[t] + D u[t]

    Parameter names are those of mamba_ssm.

    Args:
        channels: width of u.
        state: numbers of memory per channel.
        rank: rank of the step sizes.
        spread_dt: start with step sizes spread over `DT_MIN`..`DT_MAX`; otherwise `nn.Linear`'s start (about 0.5 to 1).
    """

    def __init__(self, channels: int, state: int, rank: int, *, spread_dt: bool = True) -> None:
        super().__init__()
        self.parts = (rank, state, state)
        self.x_proj = nn.Linear(channels, sum(self.parts), bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        if spread_dt:
            nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
            dt = torch.empty(channels).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp().clamp(min=DT_FLOOR)
            with torch.no_grad():
                # The inverse of softplus, so that delta starts as dt.
                self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def direction(self, u: Tensor, *, reverse: bool) -> Direction:
        """What `selective_scan` needs to run this core over u, (rows, frames, channels)."""
        dt, B, C = self.x_proj(u).split(self.parts, dim=-1)
        return Direction(
            u=u,
            dt=F.linear(dt, self.dt_proj.weight),
            A=-torch.exp(self.A_log),
            B=B,
            C=C,
            skip=self.D,
            dt_bias=self.dt_proj.bias,
            reverse=reverse,
        )


@dataclass(frozen=True)
class Branch:
    """One direction through time: its convolution, its core, and which way it runs."""

    conv: nn.Conv1d
    core: Core
    reverse: bool


@dataclass(frozen=True)
class State:
    """What a chunk hands to the next one of the same sweep."""

    inputs: Tensor  # (rows, conv - 1, e): the last inputs of the convolution
    memory: Tensor  # (rows, e, n): the state of the scan


def short_conv(channels: int, width: int) -> nn.Conv1d:
    """The parameters of a depthwise convolution over `width` frames, with PyTorch's start as in mamba_ssm."""
    return nn.Conv1d(channels, channels, width, groups=channels)


def run(x: Tensor, gate: Tensor, branches: Sequence[Branch], lengths: Tensor | None) -> Tensor:
    """Convolves and scans whole rows: silu(gate) * the sum over branches of scan(silu(conv(x))).

    Args:
        x, gate: (rows, frames, e).
        branches: one or two; they share one call of each op, so that x and the gate are kept once for gradients.
        lengths: (rows,) real frames per row, or None when all are.
    """
    us = causal_conv(x, [_filter(branch) for branch in branches], silu=True, lengths=lengths)
    directions = [branch.core.direction(u, reverse=branch.reverse) for u, branch in zip(us, branches, strict=True)]
    return selective_scan(directions, gate, lengths=lengths)


def run_chunk(x: Tensor, gate: Tensor, branch: Branch, state: State | None) -> tuple[Tensor, State]:
    """As `run`, for one branch and one chunk of frames, with the state that the previous chunk left."""
    inputs, memory = (None, None) if state is None else ((state.inputs,), (state.memory,))
    (u,), (inputs,) = causal_conv(x, [_filter(branch)], silu=True, initial=inputs, return_final=True)
    direction = branch.core.direction(u, reverse=branch.reverse)
    y, (memory,) = selective_scan([direction], gate, initial=memory, return_final=True)
    return y, State(inputs, memory)


def _filter(branch: Branch) -> Filter:
    return Filter(weight=branch.conv.weight.squeeze(1), bias=branch.conv.bias, reverse=branch.reverse)


def renamed(state: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """A state dict under other names."""
    return {rename(name): value for name, value in state.items()}
