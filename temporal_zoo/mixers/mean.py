"""A control that forgets the order of frames: every frame gets the average of its row."""

import torch
from torch import Tensor

from temporal_zoo.interface import Mixer
from temporal_zoo.registry import register


@register("mean", summary="control: the average over the frames of a row", paper="none (control)", time="T", memory="T")
class Mean(Mixer):
    """y_i = (1 / T) sum_j x_j over the T real frames of a row: the simplest exchange between all frames.

    No parameters.  Sums are in float32 (float64 for float64 frames).
    """

    causal = False
    order_blind = True

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        frames = x.shape[1]
        total = x.sum(1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        count = frames if lengths is None else lengths.clamp(1, frames)[:, None, None]
        return (total / count).to(x.dtype).repeat(1, frames, 1)
