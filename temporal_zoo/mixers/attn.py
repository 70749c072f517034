"""Softmax attention as in the papers' code, which stores the weights of all pairs of frames."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from temporal_zoo.interface import Mixer
from temporal_zoo.mixers._heads import Heads, RelativeBias, SoftmaxConfig
from temporal_zoo.ops import _transforms
from temporal_zoo.ops.attention import attention
from temporal_zoo.registry import register

log = logging.getLogger("temporal_zoo.mixers")

# Above this size of the stored weights, in bytes, `attn` logs a hint to use `flash`.
LARGE = 2**30


@register(
    "attn",
    summary="softmax attention that stores its weights, the papers' quadratic baseline; flash is the same function",
    paper="2204.03458; baseline of 2403.07711",
    time="T^2",
    memory="T^2",
)
class Attn(Mixer):
    """Every frame attends to every frame; rows x heads x frames x frames weights are computed and stored for backward.

    y = concat over heads of softmax(rotary(q) . rotary(k) / sqrt(features) + relative bias) v, times a linear map
    (Video Diffusion Models, arXiv 2204.03458; the temporal attention of arXiv 2403.07711).  Those papers measured this
    unfused evaluation.  `flash` is the same function with the same parameters, and does not store the weights: use it
    unless you reproduce the papers' cost.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(SoftmaxConfig):
        """Options of softmax attention over frames."""

    config: Config
    causal = False

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        self.heads = Heads(dim, config)
        self.order_blind = not (config.rotary or config.relative_bias)

    @classmethod
    def make_shared(cls, config: Config) -> RelativeBias | None:
        return RelativeBias(config.heads) if config.relative_bias else None

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        if not x.is_meta and not torch.compiler.is_compiling() and _transforms.active() is None:
            stored = x.shape[0] * self.config.heads * x.shape[1] ** 2 * x.element_size()
            if stored > LARGE:
                _hint_at_flash()
        q, k, v = self.heads.split(x)
        bias = None if self.shared is None else self.shared(x.shape[1])
        return self.heads.merge(attention(q, k, v, bias=bias, lengths=lengths, backend="reference"))


@functools.cache
def _hint_at_flash() -> None:
    """Logs once per process that `flash` needs less memory."""
    log.warning("attn stores more than 1 GiB of attention weights; flash is the same function and does not store them")
