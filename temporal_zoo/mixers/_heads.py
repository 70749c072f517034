"""What `attn` and `flash` have in common: options, projections, rotary time, and a bias by distance in time.

Axes: r rows, t frames, i frames that ask, j frames that answer, k heads, c features, p pairs of features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from temporal_zoo.config import option
from temporal_zoo.interface import Mixer
from temporal_zoo.mixers._layers import plain

# Rotary time turns the first 32 features of a head and leaves the others alone (lucidrains' video-diffusion-pytorch).
TURNED_FEATURES = 32
# A bias bucket per direction and distance: 0 to 7 frames one each, then ever wider, all from 27 frames on the last:
# ceil(8 * 4 ** (n / 8)) for n = 0..7, which is T5's logarithm with 32 buckets and a furthest distance of 32.
_BUCKET_STARTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 23, 27)
_BUCKETS = 32


@dataclass(frozen=True, kw_only=True)
class HeadsConfig(Mixer.Config):
    """Options of softmax attention over frames."""

    examples = ("rotary=no", "heads=2:features=16:relative_bias=yes", "heads=3:features=8:rotary=no:relative_bias=yes")

    heads: int = option(8, "number of heads", least=1)
    features: int = option(64, "features of a head", least=2)
    rotary: bool = option(True, "turn queries and keys by their time (arXiv 2104.09864)")
    relative_bias: bool = option(False, "add a learned bias by distance in time (arXiv 1910.10683), shared over depth")


class Heads(nn.Module):
    """The linear maps around attention: frames to queries, keys and values of every head, and back; without biases."""

    def __init__(self, dim: int, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.heads * config.features
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, frames, dim) -> q, k, v, each (rows, frames, heads, features), q and k turned by their time."""
        heads = (self.config.heads, self.config.features)
        inner = self.config.heads * self.config.features
        if plain(self.qkv) and self.qkv.bias is None:
            # Two products and not one: attention keeps v for its gradient, and a v cut from a common product would keep
            # q and k as they were before they were turned.
            qk, v = (linear(x, weight) for weight in self.qkv.weight.split((2 * inner, inner)))
        else:
            qk, v = self.qkv(x).split((2 * inner, inner), dim=-1)
        q, k = qk.unflatten(-1, (2, *heads)).unbind(2)
        if self.config.rotary:
            q, k = turned(q, k)
        return q, k, v.unflatten(-1, heads)

    def merge(self, y: Tensor) -> Tensor:
        """(rows, frames, heads, features) -> (rows, frames, dim)."""
        return self.out(y.flatten(2))


def turned(*tensors: Tensor) -> list[Tensor]:
    """Rotary time: turns neighbouring pairs of features, pair p of frame t by the angle t * 10000^(-p / pairs).

    The product of a turned query and a turned key then depends on their distance in time (arXiv 2104.09864, eq. 34).

    Args:
        tensors: (rows, frames, heads, features) each; their first 32 features are turned, or all that pair up.
    """
    x = tensors[0]
    width = min(TURNED_FEATURES, x.shape[-1]) // 2 * 2
    wide = torch.promote_types(x.dtype, torch.float32)
    speed = 10_000.0 ** -(torch.arange(0, width, 2, device=x.device, dtype=wide) / width)
    angle = torch.outer(torch.arange(x.shape[1], device=x.device, dtype=wide), speed)[:, None]  # t 1 p
    cos, sin = angle.cos(), angle.sin()
    return [_turned(x, width, cos, sin) for x in tensors]


def _turned(x: Tensor, width: int, cos: Tensor, sin: Tensor) -> Tensor:
    turning, still = x.split((width, x.shape[-1] - width), -1)
    even, odd = turning.unflatten(-1, (-1, 2)).unbind(-1)
    pairs = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return torch.cat((pairs.flatten(-2).to(x.dtype), still), -1)


class RelativeBias(nn.Module):
    """A number per head for every distance in time, added to the logits: (heads, frames, frames).

    bias[k, i, j] = table[bucket(i - j), k]: far distances share a bucket, past and future do not
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
