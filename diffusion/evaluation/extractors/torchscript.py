"""Any TorchScript file, torchscript:FILE, that maps clips (b, 3, t, size, size) to features (b, f).

The file is a program and is executed: use only files that you trust.  It may contain an extra file `extractor.json`
such as {"size": 224, "least_frames": 9}; these are the defaults.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from diffusion.evaluation import EvaluationError
from diffusion.evaluation.pixels import prepared
from diffusion.evaluation.protocol import EvaluationProtocol

_FACTS = "extractor.json"
_MOST = 4096


class _Script:
    def __init__(self, path: Path, device: torch.device) -> None:
        extra = {_FACTS: b""}
        try:
            with warnings.catch_warnings():
                # torch deprecates the format; users who have such a file cannot change that.
                warnings.filterwarnings("ignore", ".torch.jit.load. is deprecated")
                self._network = torch.jit.load(path, map_location=device, _extra_files=extra).eval()
        except RuntimeError as error:
            raise EvaluationError(
                f"{path} is not a TorchScript file, or is damaged; write one with "
                "torch.jit.script(network).save(FILE); a file that holds only weights is not enough"
            ) from error
        self._size, self.least_frames = _facts(path, extra[_FACTS])
        self._path, self._device = path, device
        self.measures = (f"Frechet distance of {path.stem}", f"kernel distance of {path.stem}")
        self.identity = {"extractor": "torchscript", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    @torch.inference_mode()
    def features(self, values: Tensor, protocol: EvaluationProtocol) -> Tensor:
        """Maps clips to (b, f).

        Raises:
            EvaluationError: the output of the file has another shape.
        """
        clips = prepared(values.to(self._device), protocol, self._size)
        output = self._network(clips)
        if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(values):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise EvaluationError(f"{self._path} maps clips {tuple(clips.shape)} to {shape}, not to (clips, features)")
        return output.float().cpu()


def _facts(path: Path, text: bytes) -> tuple[int, int]:
    """Reads the size and the least number of frames from the extra file."""
    facts = {"size": 224, "least_frames": 9}
    try:
        facts |= json.loads(text or b"{}")
    except (ValueError, TypeError, RecursionError) as error:
        raise EvaluationError(f"{_FACTS} in {path} is not a JSON object ({error})") from error
    for name in ("size", "least_frames"):
        if not (isinstance(facts[name], int) and 0 < facts[name] <= _MOST):
            raise EvaluationError(f"{_FACTS} in {path} has {name} {facts[name]!r}; write an integer from 1 to {_MOST}")
    return facts["size"], facts["least_frames"]


def open_extractor(argument: str, weights: Path | None, device: torch.device) -> _Script:
    """Opens the network in the file `argument`, or in --weights."""
    path = Path(argument).expanduser() if argument else weights
    if path is None or (argument and weights):
        raise EvaluationError("torchscript needs one file: --extractor torchscript:FILE")
    if not path.is_file():
        raise EvaluationError(f"there is no file {path}")
    return _Script(path, device)
