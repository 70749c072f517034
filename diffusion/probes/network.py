"""The small network around a mixer in a probe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_zoo import MixerSpec, build, get


class Answerer(nn.Module):
    """Linear, residual layers of mixer and pointwise MLP after norms, linear: (b, t, i) -> (b, t, o).

    All parts except the mixers process each frame separately, so only the mixers pass information between frames.  The
    other parts are initialised first: with one seed they have the same initial weights for every mixer.
    """

    def __init__(self, spec: MixerSpec, inputs: int, outputs: int, *, width: int, depth: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.lift = nn.Linear(inputs, width)
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
            self.mlps = nn.ModuleList(
                nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
            )
            self.head = nn.Linear(width, outputs)
            self.shared = get(spec.name).mixer.make_shared(spec.config())
            self.mixers = nn.ModuleList(build(spec, width, shared=self.shared) for _ in range(depth))

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, t, i) -> (b, t, o)."""
        x = self.lift(inputs)
        for layer, (mixer, mlp) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            x = x + mixer(self.norms[2 * layer](x))
            x = x + mlp(self.norms[2 * layer + 1](x))
        return self.head(x)
