"""Gated linear attention over frames with ReLU features: the linear attention of SANA-Video 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from temporal_zoo.config import option
from temporal_zoo.interface import Mixer
from temporal_zoo.mixers._heads import HeadsConfig, apply_rotary
from temporal_zoo.ops.linear_attention import linear_attention
from temporal_zoo.registry import register

# Added to the mean square of a vector before its root (the value of that code).
_EPS = 1e-5


@register(
    "gatedlin",
    summary="linear attention with ReLU features, a weight per frame and an output gate",
    paper="2607.21553; the normalised form with rotary embedding is that of 2509.24695",
    time="T",
    memory="T",
)
class GatedLin(Mixer):
    """Linear attention with a learned weight per frame and head, normalised, with a gated output.

        q, k, v = qkv x, q and k divided by their root mean square over all heads; beta = sigmoid(beta_proj x)
        o_i = (sum_j beta_j v_j rotary(relu k_j)^T) rotary(relu q_i) / sum_j relu k_j . relu q_i
        y_i = out_proj( sigmoid(gate x_i) * o_i / rms(o_i) ), rms per head

    The rotary embedding is in the numerator only, so that the denominator is a sum of terms that are not negative
    (arXiv 2509.24695; weight, norm and gate as in SANA-Video 2, arXiv 2607.21553).  The released code of
    SANA-Video 2 takes q and k without ReLU in the numerator; the flavour `sana2` does so.  There o can exceed the range
    of float16 where no feature of a query is above zero, which happens with few features; bfloat16 has the range.  The
    parameters are those of that code where heads x features is the width: 20,898 at width 64 with heads=2:features=32.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadsConfig):
        """Options of `gatedlin`."""

        numerator: Literal["relu", "signed"] = option(
            "relu", "features of the numerator: ReLU of q and k, or q and k themselves (code of SANA-Video 2)"
        )
        flavours: ClassVar[dict[str, str]] = {"sana2": "numerator=signed"}
        examples: ClassVar[tuple[str, ...]] = ("rotary=no", flavours["sana2"], "heads=3:features=5:numerator=signed")

    config: Config
    causal = False
    no_decay = ("q_norm", "k_norm", "out_norm")

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        self.qkv = nn.Linear(dim, 3 * config.inner, bias=False)
        self.q_norm = nn.Parameter(torch.ones(config.inner))
        self.k_norm = nn.Parameter(torch.ones(config.inner))
        self.beta_proj = nn.Linear(dim, config.heads)
        self.gate = nn.Linear(dim, config.inner)
        self.out_norm = nn.Parameter(torch.ones(config.features))
        self.out_proj = nn.Linear(config.inner, dim)
        self.order_blind = not config.rotary

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        heads = (self.config.heads, self.config.features)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = _rms_normed(q, self.q_norm).unflatten(-1, heads)
        k = _rms_normed(k, self.k_norm).unflatten(-1, heads)
        features = [q.relu(), k.relu()]
        numerator = features if self.config.numerator == "relu" else [q, k]
        if self.config.rotary:
            numerator = apply_rotary(*numerator)
        y = linear_attention(
            *numerator,
            v.unflatten(-1, heads),
            weights=self.beta_proj(x).sigmoid(),
            norm_q=features[0],
            norm_k=features[1],
            lengths=lengths,
        )
        y = _rms_normed(y, self.out_norm).flatten(2)
        return self.out_proj(y * self.gate(x).sigmoid())


def _rms_normed(x: Tensor, gain: Tensor) -> Tensor:
    """gain x / sqrt(mean x^2 + eps) over the last axis, in float32 at least; dtype of x (arXiv 1910.07467, eq. 4)."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (wide.square().mean(-1, keepdim=True) + _EPS).rsqrt() * gain).to(x.dtype)
