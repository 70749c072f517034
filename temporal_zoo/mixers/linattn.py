"""Linear attention over frames with softmax features: the linear temporal attention in the code of arXiv 2403.07711."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from temporal_zoo.interface import Mixer
from temporal_zoo.mixers._heads import Heads, HeadsConfig
from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.linear_attention import linear_attention
from temporal_zoo.registry import register


@register(
    "linattn",
    summary="linear attention with softmax features: one sum over all frames, read by every frame",
    paper="1812.01243; as a temporal layer the code of 2403.07711",
    time="T",
    memory="T",
)
class LinAttn(Mixer):
    """Every frame reads one matrix per head, the sum over all frames of the products of keys and values.

        S = sum_j v_j softmax_frames(rotary(k))_j^T;  y_i = S softmax_features(rotary(q_i)) / sqrt(features)

    followed by a linear map (efficient attention, arXiv 1812.01243; "l-attn" in the code of arXiv 2403.07711, which
    rotates before it takes the softmax).  The parameters are those of `attn` without relative bias: 131,072 at width
    64.  Padded frames have no part in the softmax over frames.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadsConfig):
        """Options of linear attention over frames."""

        examples = ("rotary=no", "heads=3:features=5")

    config: Config
    causal = False

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        self.heads = Heads(dim, config)
        self.order_blind = not config.rotary

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        q, k, v = self.heads.split(x)
        q = q.softmax(-1) * self.config.features**-0.5
        k = fill_padding(k, lengths, float("-inf")).softmax(1)
        # Under autocast softmax returns float32.
        return self.heads.merge(linear_attention(q.to(v.dtype), k.to(v.dtype), v, lengths=lengths))
