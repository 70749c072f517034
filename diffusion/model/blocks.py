"""Spatial blocks: they process each frame by itself, except that `GroupNorm` may take statistics over a clip.

Letters: b clips, t frames, c channels, h w height and width, k heads, d features of a head, n pixels.
Frames travel as (b t) c h w, channels last in memory.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from temporal_zoo.ops.attention import attention

HEAD_FEATURES = 32


class GroupNorm(nn.Module):
    """Group normalisation whose statistics cover all real frames of a clip (arXiv 2403.07711's code) or each frame."""

    eps = 1e-5

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, norm_frames: int, real: Tensor | None = None) -> Tensor:
        """Normalises.

        Args:
            x: (clips * frames, channels, height, width).
            norm_frames: how many consecutive frames share their statistics: all frames of a clip, or 1.
            real: (clips * frames,) 1 for real frames and 0 for padding, or None when all are real.
        """
        if real is not None:
            return self._over_real_frames(x, norm_frames, real)
        # With channels last in memory, the frames of a clip are one tall picture, so this needs no copy.
        tall = rearrange(x, "(b t) c h w -> b c (t h) w", t=norm_frames)
        tall = F.group_norm(tall, self.groups, self.weight, self.bias, self.eps)
        return rearrange(tall, "b c (t h) w -> (b t) c h w", t=norm_frames)

    def _over_real_frames(self, x: Tensor, norm_frames: int, real: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        groups = rearrange(wide, "(b t) (g c) h w -> b t g (c h w)", t=norm_frames, g=self.groups)
        real = real.view(-1, norm_frames, 1)
        frame_weight = real / real.sum(1, keepdim=True).clamp(min=1)
        mean = (groups.mean(3) * frame_weight).sum(1)[:, None, :, None]
        variance = ((groups - mean).square().mean(3) * frame_weight).sum(1)[:, None, :, None]
        # Padded frames are set to zero: divided by the variance of real frames, they would grow from block to block.
        normed = (groups - mean) * torch.rsqrt(variance + self.eps) * real[..., None]
        normed = rearrange(normed, "b t g (c h w) -> (b t) (g c) h w", h=x.shape[2], w=x.shape[3])
        return torch.addcmul(self.bias[:, None, None], normed, self.weight[:, None, None]).to(x.dtype)


class ConvBlock(nn.Module):
    """3x3 convolution, group norm, optional modulation, SiLU."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = GroupNorm(groups, outputs)

    def forward(self, x: Tensor, modulation: Tensor | None, norm_frames: int, real: Tensor | None) -> Tensor:
        """modulation: (clips * frames, 2 * outputs), scale then shift, or None; the rest as in `GroupNorm`."""
        y = self.norm(self.conv(x), norm_frames, real)
        if modulation is not None:
            scale, shift = modulation[:, :, None, None].chunk(2, dim=1)
            y = torch.addcmul(shift, y, 1 + scale)
        return F.silu(y)


class ResidualBlock(nn.Module):
    """Two conv blocks and a shortcut; the noise level scales and shifts the first one after its norm."""

    def __init__(self, inputs: int, outputs: int, groups: int, time_width: int | None, zero_init: bool) -> None:
        super().__init__()
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * outputs)) if time_width else None
        self.first = ConvBlock(inputs, outputs, groups)
        self.second = ConvBlock(outputs, outputs, groups)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        if zero_init:
            # The second norm's gain, not a convolution: silu(0) = 0, so the block starts equal to its shortcut.
            nn.init.zeros_(self.second.norm.weight)

    def forward(self, x: Tensor, level: Tensor, norm_frames: int, real: Tensor | None) -> Tensor:
        """level: (clips * frames, time_width), the embedded noise level of each frame; the rest as in `GroupNorm`."""
        modulation = self.modulation(level) if self.modulation else None
        y = self.first(x, modulation, norm_frames, real)
        return self.second(y, None, norm_frames, real) + self.shortcut(x)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, with a gain and no shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.movedim(1, -1), self.gain.shape, self.gain).movedim(-1, 1)


class LinearAttention(nn.Module):
    """Linear attention over the pixels of a frame, as a residual branch: x + Attention(ChannelNorm(x)).

    q = softmax over features, k = softmax over pixels; out = q (k^T v) features^-1/2 (arXiv 1812.01243).
    """

    def __init__(self, channels: int, heads: int, zero_init: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * heads * HEAD_FEATURES, 1, bias=False)
        self.to_out = nn.Conv2d(heads * HEAD_FEATURES, channels, 1)
        if zero_init:
            nn.init.zeros_(self.to_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.to_qkv(self.norm(x)), "f (s k d) h w -> s f k d (h w)", s=3, k=self.heads)
        q = q.softmax(dim=2) * HEAD_FEATURES**-0.5
        context = k.softmax(dim=3) @ v.transpose(2, 3)  # f k d e
        out = rearrange(context.transpose(2, 3) @ q, "f k e (h w) -> f (k e) h w", h=x.shape[2])
        return x + self.to_out(out)


class FullAttention(nn.Module):
    """Softmax attention over the pixels of a frame, as a residual branch; for the coarsest resolution."""

    def __init__(self, channels: int, heads: int, zero_init: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * heads * HEAD_FEATURES, bias=False)
        self.to_out = nn.Linear(heads * HEAD_FEATURES, channels, bias=False)
        if zero_init:
            nn.init.zeros_(self.to_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(self.norm(x), "f c h w -> f (h w) c")
        q, k, v = rearrange(self.to_qkv(tokens), "f n (s k d) -> s f n k d", s=3, k=self.heads)
        out = rearrange(attention(q, k, v), "f n k d -> f n (k d)")
        return x + rearrange(self.to_out(out), "f (h w) c -> f c h w", h=x.shape[2])


class LevelEmbedding(nn.Module):
    """Embeds noise levels: sin(s f_i) and cos(s f_i), f_i = 10000^(-i / (half - 1)), then two linear layers."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(width, time_width), nn.GELU(), nn.Linear(time_width, time_width))

    def sinusoid(self, level: Tensor) -> Tensor:
        """(entries,) -> (entries, width)."""
        half = self.width // 2
        exponent = torch.arange(half, device=level.device, dtype=torch.float32) / (half - 1)
        angle = level.float()[:, None] * torch.exp(-math.log(10000) * exponent)
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    def forward(self, level: Tensor) -> Tensor:
        return self.layers(self.sinusoid(level).to(next(self.parameters()).dtype))
