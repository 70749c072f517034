"""Softmax attention that never stores the weights of all pairs of frames: the same function as `attn`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from temporal_zoo.interface import Mixer
from temporal_zoo.mixers._heads import Heads, RelativeBias, SoftmaxConfig
from temporal_zoo.ops.attention import attention
from temporal_zoo.registry import register


@register(
    "flash",
    summary="softmax attention that never stores its weights: the same function as attn, linear memory",
    paper="2205.14135; same function as attn",
    time="T^2",
    memory="T",
)
class Flash(Mixer):
    """Every frame attends to every frame, without rows x heads x frames x frames numbers, forward or backward.

    y as in `attn`, with the same parameters: each loads the other's state dict.  Without relative bias a fused backend
    of the op runs (FlashAttention, arXiv 2205.14135).  With relative bias the blocked backend runs, which also sums the
    gradient of the bias; it stores heads x frames x frames numbers for the bias, for any number of rows.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(SoftmaxConfig):
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
        return self.heads.merge(attention(q, k, v, bias=bias, lengths=lengths))
