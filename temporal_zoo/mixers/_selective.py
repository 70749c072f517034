"""The selective state space model of one direction: the core of `mamba` and `bimamba`, and of others with `core=s6`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from temporal_zoo.mixers._layers import plain
from temporal_zoo.ops.selective_scan import Direction

# Initial step sizes: log-uniform between the first two, at least the floor (arXiv:2312.00752, section 3.6).
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class SelectiveCore(nn.Module):
    """The selective state space model of one direction ("S6", arXiv:2312.00752, algorithm 2): u -> y.

        dt, B, C = split(x_proj u);  delta = softplus(dt_proj dt);  A = -exp(A_log)
        h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t];  y[t] = C[t] h[t] + D u[t]

    Parameter names are those of mamba_ssm.

    Args:
        channels: width of u.
        state: size of the state per channel.
        rank: rank of the step sizes.
        spread_dt: whether initial step sizes are spread over `DT_MIN`..`DT_MAX`; otherwise `nn.Linear` initialises them
            (about 0.5 to 1).
    """

    NO_DECAY = ("A_log", "D", "dt_proj.bias")

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
                # The inverse of softplus, so that the initial delta is dt.
                self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def direction(self, u: Tensor, *, reverse: bool) -> Direction:
        """The inputs of `selective_scan`, computed from u (rows, frames, channels)."""
        steps, B, C = self.x_proj(u).split(self.parts, dim=-1)
        layer = self.dt_proj
        # The scan adds a plain layer's bias in its own precision.
        dt, bias = (linear(steps, layer.weight), layer.bias) if plain(layer) else (layer(steps), None)
        return Direction(u, dt, -torch.exp(self.A_log), B, C, self.D, bias, reverse)
