"""Packages in which every file is one entry of a list, such as an ablation or a probe: names without an import."""

from __future__ import annotations

import ast
import pkgutil
import sys
from importlib.util import find_spec
from pathlib import Path


def names(package: str) -> list[str]:
    """The names of the package's modules, sorted, without those that begin with _; imports none of them."""
    modules = pkgutil.iter_modules(sys.modules[package].__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def summary(package: str, name: str) -> str:
    """The first line of a module's docstring, read without an import of the module."""
    spec = find_spec(f"{package}.{name}")
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
