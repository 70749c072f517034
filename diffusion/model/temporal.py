"""The temporal block of a slot: folds clips into rows of frames, applies a mixer, and unfolds the rows.

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
    """x + gate * Mixer(norm(x)): the residual branch around a mixer, the same for all mixers.

    Args:
        slot: its name in the network (`diffusion.model.slots`).
        mixer: the mixer of this slot; its width is the number of channels of the frames.
        time_width: width of the noise-level vector if it scales and shifts the normed frames, else None.
        gated: whether a learned gain per channel, which starts at zero, multiplies the branch.
        recompute: whether backward recomputes the mixer's activations instead of storing them.
    """

    def __init__(self, slot: str, mixer: Mixer, *, time_width: int | None, gated: bool, recompute: bool) -> None:
        super().__init__()
        self.slot = slot
        self.gain = nn.Parameter(torch.ones(mixer.dim))
        self.gate = nn.Parameter(torch.zeros(mixer.dim)) if gated else None
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * mixer.dim)) if time_width else None
        self.mixer = mixer
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
