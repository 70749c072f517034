"""400 logits of I3D on Kinetics-400: the features of FVD."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from diffusion.evaluation import EvaluationError, weights
from diffusion.evaluation.i3d import I3D, LEAST_FRAMES, SIZE
from diffusion.evaluation.pixels import prepared
from diffusion.evaluation.protocol import Protocol


class _Logits:
    measures = ("FVD", "KVD")
    least_frames = LEAST_FRAMES

    def __init__(self, network: I3D, device: torch.device) -> None:
        self.identity = {"extractor": "i3d", "sha256": weights.SHA256}
        self._network, self._device = network.to(device), device

    def features(self, values: Tensor, protocol: Protocol) -> Tensor:
        return self._network(prepared(values.to(self._device), protocol, SIZE)).cpu()


def open_extractor(argument: str, chosen: Path | None, device: torch.device) -> _Logits:
    """I3D with the weights that `weights.find` finds."""
    if argument:
        raise EvaluationError(f"i3d takes no argument, and so not {argument!r}; its weights are named by --weights")
    return _Logits(I3D(weights.load(weights.find(chosen))), device)
