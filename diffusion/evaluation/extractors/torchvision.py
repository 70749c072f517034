"""Kinetics-400 classifiers of torchvision, such as torchvision:r3d_18, with --weights FILE: a state dict, local.

Features are the input of the last layer.  Clips are resized to 112 pixels with the protocol's interpolation, and
normalised as in the training of these networks; the protocol's range does not apply.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion.evaluation import EvaluationError
from diffusion.evaluation.pixels import quantised_values, resized
from diffusion.evaluation.protocol import EvaluationProtocol
from temporal_zoo._support.packages import need
from temporal_zoo.config import nearest

SIZE = 112
NETWORKS = ("r3d_18", "mc3_18", "r2plus1d_18")
_MEAN = (0.43216, 0.394666, 0.37645)  # of Kinetics-400 in [0, 1], as torchvision documents them
_SPREAD = (0.22803, 0.22145, 0.216989)


class _Classifier:
    least_frames = 9

    def __init__(self, name: str, network: nn.Module, digest: str, device: torch.device) -> None:
        self._network, self._device = network.to(device), device
        self.measures = (f"Frechet distance of {name}", f"kernel distance of {name}")
        self.identity = {"extractor": f"torchvision:{name}", "sha256": digest}

    @torch.inference_mode()
    def features(self, values: Tensor, protocol: EvaluationProtocol) -> Tensor:
        """(b, 512)."""
        values = quantised_values(values, protocol).to(self._device).expand(-1, -1, 3, -1, -1)
        mean, spread = (torch.tensor(numbers, device=self._device)[:, None, None] for numbers in (_MEAN, _SPREAD))
        clips = (resized(values, SIZE, protocol.resize) / 2 + 0.5 - mean) / spread
        return self._network(clips.transpose(1, 2)).float().cpu()


def open_extractor(argument: str, weights: Path | None, device: torch.device) -> _Classifier:
    """Opens the network that `argument` names, with the state dict in `weights`, without its last layer."""
    if argument not in NETWORKS:
        raise EvaluationError(
            f"unknown network torchvision:{argument}{nearest(argument, NETWORKS)}; choose from {', '.join(NETWORKS)}"
        )
    models = need("torchvision.models.video", f"the extractor torchvision:{argument}")
    if weights is None or not weights.is_file():
        raise EvaluationError(
            f"torchvision:{argument} needs --weights FILE, the state dict that torchvision publishes for Kinetics-400"
        )
    network = getattr(models, argument)(weights=None).eval()
    state = tensors(weights, argument)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise EvaluationError(f"{weights} does not hold the weights of {argument} ({why})") from error
    network.fc = nn.Identity()
    return _Classifier(argument, network, hashlib.sha256(weights.read_bytes()).hexdigest(), device)


def tensors(path: Path, network: str) -> dict[str, Tensor]:
    """Reads the tensors of a file by name; rejects other objects, because unpickling them can execute code."""
    refusal = f"{path} does not hold the weights of {network}: "
    remedy = "; store a state dict, torch.save(network.state_dict(), FILE)"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = "it is damaged, or a pickle of other objects, which is not opened because it could execute code"
        raise EvaluationError(refusal + why + remedy) from error
    except OSError:
        raise
    except Exception as error:  # a damaged or foreign file raises many kinds of errors
        raise EvaluationError(f"{refusal}it is damaged, cut short, or not a file of torch{remedy}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EvaluationError(f"{refusal}it holds objects other than named tensors{remedy}")
    return state
