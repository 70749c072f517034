"""The common parts of attention mixers: options, projections, rotary embedding, relative position bias.

Axes: r rows, t frames, i frames of queries, j frames of keys, k heads, c features, p pairs of features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from temporal_zoo.config import option
from temporal_zoo.interface import Mixer
from temporal_zoo.mixers._layers import plain

# The rotary embedding changes the first 32 features of a head and not the others (lucidrains' video-diffusion-pytorch).
ROTARY_FEATURES = 32
# The first distance of each bias bucket, per direction: one bucket for each distance up to 7 frames, then wider buckets
# that start at ceil(8 * 4 ** (n / 8)) for n = 0..7; the last holds all distances from 27 frames.  This is T5's
# logarithmic spacing with 32 buckets and a maximum distance of 32.
_BUCKET_STARTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 23, 27)
_BUCKETS = 32


@dataclass(frozen=True, kw_only=True)
class HeadsConfig(Mixer.Config):
    """Options of attention over frames."""

    heads: int = option(8, "number of heads", least=1)
    features: int = option(64, "features of a head", least=2)
    rotary: bool = option(True, "rotary embedding of time in queries and keys (arXiv 2104.09864)")

    @property
    def inner(self) -> int:
        """The width of all heads together."""
        return self.heads * self.features


@dataclass(frozen=True, kw_only=True)
class SoftmaxConfig(HeadsConfig):
    """Options of softmax attention over frames."""

    examples = ("rotary=no", "heads=2:features=16:relative_bias=yes", "heads=3:features=8:rotary=no:relative_bias=yes")

    relative_bias: bool = option(False, "add a learned bias per distance in time (arXiv 1910.10683), shared over depth")


class Heads(nn.Module):
    """The linear maps around attention, without biases: from frames to queries, keys and values, and back to frames."""

    def __init__(self, dim: int, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(dim, 3 * config.inner, bias=False)
        self.out = nn.Linear(config.inner, dim, bias=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, frames, dim) -> q, k, v, each (rows, frames, heads, features), q and k with their rotary embedding."""
        heads = (self.config.heads, self.config.features)
        inner = self.config.inner
        if plain(self.qkv) and self.qkv.bias is None:
            # Two products and not one: attention stores v for its gradient.  If v were a slice of a common product, it
            # would also keep q and k before their rotation in memory.
            qk, v = (linear(x, weight) for weight in self.qkv.weight.split((2 * inner, inner)))
        else:
            qk, v = self.qkv(x).split((2 * inner, inner), dim=-1)
        q, k = qk.unflatten(-1, (2, *heads)).unbind(2)
        if self.config.rotary:
            q, k = apply_rotary(q, k)
        return q, k, v.unflatten(-1, heads)

    def merge(self, y: Tensor) -> Tensor:
        """(rows, frames, heads, features) -> (rows, frames, dim)."""
        return self.out(y.flatten(2))


def apply_rotary(*tensors: Tensor) -> list[Tensor]:
    """Rotary embedding: rotates pair p of neighbouring features at frame t by the angle t * 10000^(-p / pairs).

    The product of a rotated query and a rotated key depends on their distance in time (arXiv 2104.09864, eq. 34).

    Args:
        tensors: (rows, frames, heads, features) each.  The first 32 features are rotated; with fewer features, all
            complete pairs.
    """
    x = tensors[0]
    width = min(ROTARY_FEATURES, x.shape[-1]) // 2 * 2
    wide = torch.promote_types(x.dtype, torch.float32)
    inv_freq = 10_000.0 ** -(torch.arange(0, width, 2, device=x.device, dtype=wide) / width)
    angle = torch.outer(torch.arange(x.shape[1], device=x.device, dtype=wide), inv_freq)[:, None]  # t 1 p
    cos, sin = angle.cos(), angle.sin()
    return [_rotated(x, width, cos, sin) for x in tensors]


def _rotated(x: Tensor, width: int, cos: Tensor, sin: Tensor) -> Tensor:
    rotated, passthrough = x.split((width, x.shape[-1] - width), -1)
    even, odd = rotated.unflatten(-1, (-1, 2)).unbind(-1)
    pairs = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return torch.cat((pairs.flatten(-2).to(x.dtype), passthrough), -1)


class RelativeBias(nn.Module):
    """A learned number per head and distance in time, added to the logits: (heads, frames, frames).

    bias[k, i, j] = table[bucket(i - j), k].  Large distances share a bucket; past and future have separate buckets
    (T5, arXiv 1910.10683, section 2.1; the spacing of the paper's code).
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(_BUCKETS, heads)

    def forward(self, frames: int) -> Tensor:
        time = torch.arange(frames, device=self.table.weight.device)
        return self.table(buckets(time[:, None] - time)).permute(2, 0, 1)


def buckets(lag: Tensor) -> Tensor:
    """The bucket of each lag, query time minus key time: 0..15 for the past and the present, 16..31 for the future."""
    distance = torch.bucketize(lag.abs(), torch.tensor(_BUCKET_STARTS, device=lag.device), right=True)
    return distance + (lag < 0) * (_BUCKETS // 2)
