"""The build hook of hatchling for wheels with compiled libraries: `ZOO_WHEEL=native pip wheel --no-deps .`

Without that variable the wheel is pure Python, works on every platform, and compiles at the first use.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# On Linux on other processors the wheel stays pure Python.
INSTRUCTIONS = {"x86_64": ("DEFAULT", "AVX2", "AVX512"), "aarch64": ("DEFAULT",)}


class NativeLibraries(BuildHookInterface):
    """Compiles every source for every instruction set of this processor and adds the libraries to the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        machine = platform.machine()
        if version == "editable" or os.environ.get("ZOO_WHEEL") != "native":
            return
        if sys.platform != "linux" or machine not in INSTRUCTIONS:
            raise RuntimeError(f"ZOO_WHEEL=native builds on Linux for {', '.join(INSTRUCTIONS)}, not for {machine}")
        compiler = _compiler_module(Path(self.root))
        command = [*compiler.compiler(), *compiler.OPTIONS]  # torch needs the C++ runtime too
        folder = Path(self.directory) / "native"
        folder.mkdir(parents=True, exist_ok=True)
        for source in compiler.sources():
            for instructions in INSTRUCTIONS[machine]:
                target = compiler.shipped(source, instructions)
                built = folder / target.name
                compiler.compile_library(source, [*command, *compiler.CPU_OPTIONS[instructions]], built)
                build_data["force_include"][str(built)] = target.relative_to(self.root).as_posix()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{machine}"


def _compiler_module(root: Path) -> ModuleType:
    """`_compiler` by its path, because the packages above it import torch."""
    path = root / "temporal_zoo" / "ops" / "_compiler.py"
    spec = importlib.util.spec_from_file_location("temporal_zoo_compiler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
