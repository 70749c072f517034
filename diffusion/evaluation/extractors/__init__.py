"""Networks whose features are compared.  A file here is an extractor; `--extractor NAME` or NAME:ARGUMENT opens it.

A module has one function,

    open_extractor(argument: str, weights: Path | None, device: torch.device) -> Extractor

where `argument` is the text after the colon (empty without a colon) and `weights` is the path of `--weights`.
`zoo evaluate` prints the first line of the module's docstring.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diffusion.evaluation import EvaluationError
from temporal_zoo._support import submodules
from temporal_zoo.config import nearest

if TYPE_CHECKING:
    import torch

    from diffusion.evaluation import protocol


class Extractor(Protocol):
    """A network that maps clips to features.

    measures: the names of the Frechet and the kernel distance of its features; only I3D's are called "FVD" and "KVD".
    identity: what features depend on besides clips and protocol: the extractor's name, and the sha256 of its weights.
    least_frames: the shortest clips that it accepts.
    """

    measures: tuple[str, str]
    identity: dict[str, str]
    least_frames: int

    def features(self, values: torch.Tensor, protocol: protocol.EvaluationProtocol) -> torch.Tensor:
        """Maps (b, t, c, h, w) uint8, or floats in [-1, 1], to (b, f) float32; both are on the CPU."""
        ...


def names() -> list[str]:
    """The names of all extractors; imports none of them."""
    return submodules.names(__name__)


def summary(name: str) -> str:
    """The first line of an extractor's docstring; does not import it."""
    return submodules.summary(__name__, name)


def open_extractor(text: str, weights: Path | None, device: torch.device) -> Extractor:
    """Opens the extractor that "NAME" or "NAME:ARGUMENT" names.

    Raises:
        EvaluationError: the name is unknown (the message lists the known ones), or the weights cannot be used.
    """
    name, _, argument = text.partition(":")
    if name not in names():
        listed = "; ".join(f"{known}: {summary(known)}" for known in names())
        raise EvaluationError(f"unknown extractor {name!r}{nearest(name, names())}; choose from {listed}")
    return import_module(f"{__name__}.{name}").open_extractor(argument, weights, device)
