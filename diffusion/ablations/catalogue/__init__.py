"""One file per ablation; the ablation has the file's name with hyphens.  Files that begin with _ are shared parts.

    QUESTION   the question, which is the title of the page
    CONTRASTS  claims that are declared before the ablation runs: along an axis, one value is better; may be empty
    SCALES     name -> function without arguments that returns a `Scale`
    APART      optional: axes that change the task, such as frames; cells are not compared across them

`zoo ablate --list` shows the first line of a file's docstring.
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
    """The names of all ablations; imports none of them."""
    modules = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


def summary(name: str) -> str:
    """The first line of an ablation's docstring, read without an import."""
    text = (Path(__file__).parent / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def get(name: str, scale: str) -> Ablation:
    """The ablation with this name at a scale.

    Raises: AblationError for an unknown name or scale; the message has the nearest one and the full list.
    """
    if name not in names():
        raise AblationError(f"unknown ablation {name!r}{nearest(name, names())}; choose from {', '.join(names())}")
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    if scale not in module.SCALES:
        raise AblationError(
            f"{name} has no scale {scale!r}{nearest(scale, module.SCALES)}; choose from {', '.join(module.SCALES)}"
        )
    apart = getattr(module, "APART", ())
    return Ablation(name, module.QUESTION, module.CONTRASTS, apart, scale, module.SCALES[scale]())
