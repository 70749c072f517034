"""One file per ablation; the ablation has the file's name with hyphens.  Files that begin with _ are shared parts.

    QUESTION   the question, which is the title of the page
    CONTRASTS  claims that are declared before the ablation runs: along an axis, one value is better; may be empty
    SCALES     name -> function without arguments that returns a `Scale`
    APART      optional: axes that change the task, such as frames; cells are not compared across them

`zoo ablate --list` shows the first line of a file's docstring.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from diffusion.ablations import AblationError
from diffusion.ablations.ablation import Ablation
from temporal_zoo._support import submodules
from temporal_zoo.config import nearest


def names() -> list[str]:
    """The names of all ablations; imports none of them."""
    return [name.replace("_", "-") for name in submodules.names(__name__)]


def summary(name: str) -> str:
    """The first line of an ablation's docstring, read without an import."""
    return submodules.summary(__name__, name.replace("-", "_"))


def scales(name: str) -> list[str]:
    """The names of an ablation's scales.  Raises: AblationError for an unknown name."""
    return list(_module(name).SCALES)


def get(name: str, scale: str) -> Ablation:
    """The ablation with this name at a scale.

    Raises: AblationError for an unknown name or scale; the message has the nearest one and the full list.
    """
    module = _module(name)
    if scale not in module.SCALES:
        raise AblationError(
            f"{name} has no scale {scale!r}{nearest(scale, module.SCALES)}; choose from {', '.join(module.SCALES)}"
        )
    apart = getattr(module, "APART", ())
    return Ablation(name, module.QUESTION, module.CONTRASTS, apart, scale, module.SCALES[scale]())


def _module(name: str) -> Any:
    if name not in names():
        raise AblationError(f"unknown ablation {name!r}{nearest(name, names())}; choose from {', '.join(names())}")
    return import_module(f"{__name__}.{name.replace('-', '_')}")
