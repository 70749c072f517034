"""Any TorchScript file, torchscript:FILE, from clips (b, 3, t, size, size) to features (b, f).

The file is a program that is executed: open only what you would run.  Its extra file `extractor.json`, if it has one,
may hold {"size": 224, "least_frames": 9}; these are the defaults.
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
from diffusion.evaluation.protocol import Protocol

_FACTS = "extractor.json"
_MOST = 4096


class _Script:
    def __init__(self, path: Path, device: torch.device) -> None:
        extra = {_FACTS: b""}
        try:
            with warnings.catch_warnings():
                # torch deprecates the format; a user who has such a file can do nothing about it here.
                warnings.filterwarnings("ignore", ".torch.jit.load. is deprecated")
                self._network = torch.jit.load(path, map_location=device, _extra_files=extra).eval()
        except RuntimeError as error:
            raise EvaluationError(
                f"{path} is no TorchScript file, or is damaged; a network is stored as one by "
                "torch.jit.script(network).save(FILE), and a file of weights alone is none"
            ) from error
        self._size, self.least_frames = _facts(path, extra[_FACTS])
        self._path, self._device = path, device
        self.measures = (f"Frechet distance of {path.stem}", f"kernel distance of {path.stem}")
        self.identity = {"extractor": "torchscript", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    @torch.inference_mode()
    def features(self, values: Tensor, protocol: Protocol) -> Tensor:
        """(b, f).  Raises: EvaluationError when the file makes anything else of clips."""
        clips = prepared(values.to(self._device), protocol, self._size)
        found = self._network(clips)
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(values):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise EvaluationError(f"{self._path} makes {shape} of clips {tuple(clips.shape)}, not (clips, features)")
        return found.float().cpu()


def _facts(path: Path, text: bytes) -> tuple[int, int]:
    """Size and least number of frames, from the extra file."""
    facts = {"size": 224, "least_frames": 9}
    try:
        facts |= json.loads(text or b"{}")
    except (ValueError, TypeError, RecursionError) as error:
        raise EvaluationError(f"{_FACTS} in {path} is no JSON object ({error})") from error
    for name in ("size", "least_frames"):
        if not (isinstance(facts[name], int) and 0 < facts[name] <= _MOST):
            raise EvaluationError(f"{_FACTS} in {path} says {name} {facts[name]!r}; write a number from 1 to {_MOST}")
    return facts["size"], facts["least_frames"]


def open_extractor(argument: str, weights: Path | None, device: torch.device) -> _Script:
    """The network in the file `argument`, or in --weights."""
    path = Path(argument).expanduser() if argument else weights
    if path is None or (argument and weights):
        raise EvaluationError("name one TorchScript file: --extractor torchscript:FILE")
    if not path.is_file():
        raise EvaluationError(f"there is no file {path}")
    return _Script(path, device)
