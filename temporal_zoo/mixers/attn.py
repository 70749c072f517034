"""Softmax attention as the papers' code has it: the weights of all pairs of frames are held in memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from temporal_zoo.interface import Mixer
from temporal_zoo.mixers._heads import Heads, HeadsConfig, RelativeBias
from temporal_zoo.ops.attention import attention
from temporal_zoo.registry import register


@register(
    "attn",
    summary="softmax attention that holds its weights: the papers' quadratic baseline",
    paper="2204.03458; baseline of 2403.07711",
    time="T^2",
    memory="T^2",
)
class Attn(Mixer):
    """Every frame attends to every frame; rows x heads x frames x frames weights are written out and kept.

    y = concat over heads of softmax(rotary(q) . rotary(k) / sqrt(features) + relative bias) v, times a linear map
    (Video Diffusion Models, arXiv 2204.03458; the temporal attention of arXiv 2403.07711).  The unfused evaluation is
    on purpose: it is what those papers measured.  `flash` is the same function with the same parameters.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadsConfig):
        """Options of softmax attention over frames."""

    causal = False

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        self.heads = Heads(dim, config)
        self.order_blind = not (config.rotary or config.relative_bias)

    @classmethod
    def make_shared(cls, config: Config) -> RelativeBias | None:
        return RelativeBias(config.heads) if config.relative_bias else None

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        q, k, v = self.heads.split(x)
        bias = None if self.shared is None else self.shared(x.shape[1])
        return self.heads.merge(attention(q, k, v, bias=bias, lengths=lengths, backend="reference"))
