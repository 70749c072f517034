"""One file per ablation, whose name is the file's with hyphens.  Underscore files are shared parts.

    QUESTION   what it asks, the title of its page
    CONTRASTS  what is claimed before it is run: along an axis, one value is better than another; may be empty
    SCALES     name -> function of no arguments that returns a `Scale`
    APART      where there are any, axes that change the task, such as frames: cells are not compared across them

The first line of a file's docstring is what `zoo ablate --list` says of it.
"""

from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from pathlib import Path

from diffusion.ablations import AblationError
from diffusion.ablations.ablation import Ablation
from temporal_zoo.config import nearest


def names() -> list[str]:
    """The ablations there are; imports none of them."""
    found = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))


def summary(name: str) -> str:
    """The first line of an ablation's docstring, read without importing it."""
    text = (Path(__file__).parent / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def get(name: str, scale: str) -> Ablation:
    """The ablation of that name at a scale.

    Raises: AblationError for an unknown name or scale, with the nearest one and the full list.
    """
    if name not in names():
        raise AblationError(f"there is no ablation {name!r}{nearest(name, names())}; there are {', '.join(names())}")
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    if scale not in module.SCALES:
        raise AblationError(
            f"{name} has no scale {scale!r}{nearest(scale, module.SCALES)}; it has {', '.join(module.SCALES)}"
        )
    apart = getattr(module, "APART", ())
    return Ablation(name, module.QUESTION, module.CONTRASTS, apart, scale, module.SCALES[scale]())
