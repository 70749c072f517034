"""The slot: folds a clip into rows of frames, lets a mixer mix them, and folds back.

Letters: b clips, t frames, c channels, h w height and width; a row is one pixel through time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffusion.model.recompute import recomputed
from temporal_zoo.interface import Mixer


class TemporalBlock(nn.Module):
    """x + gate * Mixer(norm(x)): the residual branch around a mixer, the same for all of them.

    Args:
        slot: its name in the network (`diffusion.model.slots`).
        channels: width of the frames here.
        time_width: width of the noise-level vector when it should scale and shift the normed frames, else None.
        gated: whether the branch is multiplied by a learned gain per channel that starts at zero.
        recompute: whether the mixer's activations are recomputed in backward instead of stored.

    The mixer is set by the backbone, after its own parameters are drawn: two backbones that differ in the mixer alone
    share every other initial weight.
    """

    mixer: Mixer

    def __init__(self, slot: str, channels: int, *, time_width: int | None, gated: bool, recompute: bool) -> None:
        super().__init__()
        self.slot = slot
        self.gain = nn.Parameter(torch.ones(channels))
        self.gate = nn.Parameter(torch.zeros(channels)) if gated else None
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * channels)) if time_width else None
        self.recompute = recompute

    def forward(self, x: Tensor, level: Tensor, frames: int, lengths: Tensor | None) -> Tensor:
        """x: (b t) c h w; level: (b t) time_width; lengths: (b,) or None."""
        height, width = x.shape[2:]
        rows = rearrange(x, "(b t) c h w -> (b h w) t c", t=frames)
        rows = F.layer_norm(rows, self.gain.shape, self.gain)
        if self.modulation is not None:
            scale, shift = rearrange(self.modulation(level), "(b t) c -> b 1 t c", t=frames).chunk(2, dim=-1)
            rows = torch.addcmul(shift, rows.unflatten(0, (-1, height * width)), 1 + scale).flatten(0, 1)
        if lengths is not None:
            lengths = lengths.repeat_interleave(height * width)
        rows = recomputed(self.mixer, rows, lengths) if self.recompute else self.mixer(rows, lengths)
        if self.gate is not None:
            rows = rows * self.gate
        return x + rearrange(rows, "(b h w) t c -> (b t) c h w", h=height, w=width)
