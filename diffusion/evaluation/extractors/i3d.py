"""400 logits of I3D, trained on Kinetics-400: the features of FVD."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from diffusion.evaluation import EvaluationError, weights
from diffusion.evaluation.i3d import I3D, LEAST_FRAMES, SIZE
from diffusion.evaluation.pixels import prepared
from diffusion.evaluation.protocol import EvaluationProtocol


class _Logits:
    measures = ("FVD", "KVD")
    least_frames = LEAST_FRAMES

    def __init__(self, network: I3D, device: torch.device) -> None:
        self.identity = {"extractor": "i3d", "sha256": weights.SHA256}
        self._network, self._device = network.to(device), device

    def features(self, values: Tensor, protocol: EvaluationProtocol) -> Tensor:
        return self._network(prepared(values.to(self._device), protocol, SIZE)).cpu()


def open_extractor(argument: str, chosen: Path | None, device: torch.device) -> _Logits:
    """Opens I3D with the weights of `weights.find`."""
    if argument:
        raise EvaluationError(f"i3d has no argument, but got {argument!r}; name its weights with --weights")
    return _Logits(I3D(weights.load(weights.find(chosen))), device)
