"""Frame statistics and a fixed random network: needs no weights; its distance is not FVD."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from diffusion.evaluation import EvaluationError
from diffusion.evaluation.pixels import quantised_values, resized
from diffusion.evaluation.protocol import EvaluationProtocol
from diffusion.randomness import generator

SIZE = 32
_WIDTHS = (3, 16, 32, 64)


class _Plain:
    """Mean, standard deviation, frame difference and second difference of each colour; 64 means of random filters.

    The network: three 3x3x3 convolutions of stride 2 with random weights and ReLU, then a mean over time and space.
    """

    measures = ("Frechet distance (plain)", "kernel distance (plain)")
    least_frames = 4

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kernels = []
        digest = hashlib.sha256()
        for number, (into, out) in enumerate(pairwise(_WIDTHS)):
            rng = generator(0, "plain extractor", number)
            kernel = torch.randn(out, into, 3, 3, 3, generator=rng) * (2 / (27 * into)) ** 0.5
            digest.update(kernel.numpy().tobytes())
            self._kernels.append(kernel.to(device))
        self.identity = {"extractor": "plain", "sha256": digest.hexdigest()}

    @torch.inference_mode()
    def features(self, values: Tensor, protocol: EvaluationProtocol) -> Tensor:
        """(b, 76)."""
        values = quantised_values(values, protocol).to(self._device).expand(-1, -1, 3, -1, -1)
        steps = values[:, 1:] - values[:, :-1]
        second = steps[:, 1:] - steps[:, :-1]
        x = resized(values, SIZE, protocol.resize).transpose(1, 2)
        for kernel in self._kernels:
            x = functional.conv3d(x, kernel, stride=2, padding=1).relu_()
        colours = [values.mean((1, 3, 4)), values.std((1, 3, 4))]
        motion = [part.square().mean((1, 3, 4)).sqrt() for part in (steps, second)]
        return torch.cat([*colours, *motion, x.mean((2, 3, 4))], 1).cpu()


def open_extractor(argument: str, weights: Path | None, device: torch.device) -> _Plain:
    """Opens the extractor, which has no settings."""
    if argument or weights:
        raise EvaluationError("plain has no argument and no weights; leave out both")
    return _Plain(device)
