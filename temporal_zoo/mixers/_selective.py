"""Short convolution and selective scan per direction: what `mamba` and `bimamba` are both composed of.

Letters: r rows, t frames, d dim, e inner width (expand * dim), n state, k rank of dt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from temporal_zoo.config import option
from temporal_zoo.interface import Mixer
from temporal_zoo.ops.causal_conv import causal_conv
from temporal_zoo.ops.selective_block import Affine, Branch
from temporal_zoo.ops.selective_scan import selective_scan

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
    """The selective state space model of one direction ("S6", arXiv:2312.00752, algorithm 2): u -> y.

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

    def branch(self, conv: nn.Conv1d, *, reverse: bool) -> Branch:
        """This core behind a short convolution, as `selective_block` reads it."""
        assert conv.bias is not None
        return Branch(
            conv_weight=conv.weight.squeeze(1),
            conv_bias=conv.bias,
            x_proj=self.x_proj.weight,
            dt_proj=self.dt_proj.weight,
            dt_bias=self.dt_proj.bias,
            A=-torch.exp(self.A_log),
            skip=self.D,
            reverse=reverse,
        )


@dataclass(frozen=True)
class State:
    """What a chunk hands to the next one of the same sweep."""

    inputs: Tensor  # (rows, conv - 1, e): the last inputs of the convolution
    memory: Tensor  # (rows, e, n): the state of the scan


def short_conv(channels: int, width: int) -> nn.Conv1d:
    """The parameters of a depthwise convolution over `width` frames, with PyTorch's start as in mamba_ssm."""
    return nn.Conv1d(channels, channels, width, groups=channels)


def affine(layer: nn.Linear, share: float = 1.0) -> Affine:
    """A projection as `selective_block` reads it, its inputs multiplied by `share`."""
    return Affine(layer.weight if share == 1 else layer.weight * share, layer.bias)


def run_chunk(a: Tensor, gate: Tensor, branch: Branch, state: State | None) -> tuple[Tensor, State]:
    """One branch of `selective_block` between the projections, for one chunk of frames and with the state before it.

    Args:
        a, gate: (rows, frames, e), the two halves of the projection in.
    """
    inputs, memory = (None, None) if state is None else ((state.inputs,), (state.memory,))
    (u,), (inputs,) = causal_conv(a, [branch.filter], silu=True, initial=inputs, return_final=True)
    direction = branch.direction(u, *branch.project(u))
    y, (memory,) = selective_scan([direction], gate, initial=memory, return_final=True)
    return y, State(inputs, memory)


def renamed(state: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """A state dict under other names."""
    return {rename(name): value for name, value in state.items()}
