"""Ridge regression from keys to values over all frames of a row, read at the queries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from temporal_zoo.interface import Mixer
from temporal_zoo.mixers._heads import Heads, HeadsConfig
from temporal_zoo.ops.ridge_attention import ridge_attention
from temporal_zoo.registry import register

# The least ridge of a key feature, and its initial value (`fla/layers/mesa_net.py` of fla-org/flash-linear-attention).
LEAST, START = 0.25, 1.0


@register(
    "mesa",
    summary="ridge regression from the keys to the values of all frames, solved exactly",
    paper="arXiv:2506.05233; over all frames, without decay",
    time="T",
    memory="T",
)
class Mesa(Mixer):
    """Every frame reads the linear map that fits the values of all frames from their keys best.

        o_i = (sum_j beta_j v_j k_j^T) (sum_j beta_j k_j k_j^T + Lambda)^-1 q_i,  y = W_out [o; ...] over heads

    q, k, v = W x, with a rotary embedding of time in q and k, which are divided by their lengths; beta = sigmoid(W' x +
    b) per head; Lambda = 0.25 + softplus(ridge) is diagonal, per head and feature, and starts at 1.  The mesa layer of
    arXiv 2506.05233 solves such a system per frame, for the past frames; here one solution per row serves all frames.
    The shell is that of `attn`: no short convolution and no norm of o.  A clip that starts later gets the same output
    if the two features of each rotated pair have one ridge, as at the start of training.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadsConfig):
        """Options of `mesa`."""

        examples: ClassVar[tuple[str, ...]] = ("rotary=no", "heads=2:features=16", "heads=3:features=5:rotary=no")

    config: Config
    causal = False
    no_decay = ("ridge",)

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        self.heads = Heads(dim, config)
        self.strength = nn.Linear(dim, config.heads)
        start = math.log(math.expm1(START - LEAST))  # softplus(start) = START - LEAST
        self.ridge = nn.Parameter(torch.full((config.heads, config.features), start))
        self.order_blind = not config.rotary

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        q, k, v = self.heads.split(x)
        beta = self.strength(x).sigmoid()
        ridge = LEAST + softplus(self.ridge.to(torch.promote_types(self.ridge.dtype, torch.float32)))
        return self.heads.merge(ridge_attention(q, k, v, beta, ridge, lengths=lengths))
