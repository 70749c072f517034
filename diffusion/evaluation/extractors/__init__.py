"""Networks whose features are compared.  A file here is an extractor; `--extractor NAME` or NAME:ARGUMENT opens it.

A module has one function,

    open_extractor(argument: str, weights: Path | None, device: torch.device) -> Extractor

where `argument` is what follows the colon, empty without one, and `weights` what `--weights` said.  The first line of
its docstring is what `zoo evaluate` says of it.
"""

from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diffusion.evaluation import EvaluationError
from temporal_zoo.config import nearest

if TYPE_CHECKING:
    import torch

    from diffusion.evaluation import protocol


class Extractor(Protocol):
    """A network from clips to features.

    measures: what Frechet and kernel distance of its features are called; "FVD" and "KVD" are those of I3D alone.
    identity: what features depend on besides clips and protocol: the extractor's name, and its weights' sha256.
    least_frames: clips shorter than this are refused.
    """

    measures: tuple[str, str]
    identity: dict[str, str]
    least_frames: int

    def features(self, values: torch.Tensor, protocol: protocol.Protocol) -> torch.Tensor:
        """(b, f) float32 on the CPU of (b, t, c, h, w) uint8, or floats in [-1, 1], on the CPU."""
        ...


def names() -> list[str]:
    """The extractors there are; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))


def summary(name: str) -> str:
    """The first line of an extractor's docstring, read without importing it."""
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def open_extractor(text: str, weights: Path | None, device: torch.device) -> Extractor:
    """The extractor that "NAME" or "NAME:ARGUMENT" names.

    Raises: EvaluationError for an unknown name, listing the known ones, or for weights that cannot be used.
    """
    name, _, argument = text.partition(":")
    if name not in names():
        listed = "; ".join(f"{known}: {summary(known)}" for known in names())
        raise EvaluationError(f"there is no extractor {name!r}{nearest(name, names())}; there is {listed}")
    return import_module(f"{__name__}.{name}").open_extractor(argument, weights, device)
