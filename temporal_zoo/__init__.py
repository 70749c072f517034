"""Interchangeable temporal mixers: `build("bimamba", dim=64)` maps (rows, frames, dim) to the same shape.

`import temporal_zoo` imports no torch: a public name is imported from its module at its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from temporal_zoo.errors import InvalidInput, UserError
    from temporal_zoo.interface import Mixer, StatefulMixer
    from temporal_zoo.layout import over_frames
    from temporal_zoo.ops import tracing, use_backend
    from temporal_zoo.registry import build, get, names, register
    from temporal_zoo.spec import MixerSpec

__version__ = "0.1.0"

# Editors and type checkers read this list and the imports above; the table below serves the interpreter.
__all__ = [
    "InvalidInput",
    "Mixer",
    "MixerSpec",
    "StatefulMixer",
    "UserError",
    "build",
    "get",
    "names",
    "over_frames",
    "register",
    "tracing",
    "use_backend",
]

_MODULES = {
    "errors": ("InvalidInput", "UserError"),
    "interface": ("Mixer", "StatefulMixer"),
    "layout": ("over_frames",),
    "ops": ("tracing", "use_backend"),
    "registry": ("build", "get", "names", "register"),
    "spec": ("MixerSpec",),
}


if not TYPE_CHECKING:  # otherwise type checkers would accept every name

    def __getattr__(name: str) -> object:
        for module, public in _MODULES.items():
            if name in public:
                return getattr(import_module(f"temporal_zoo.{module}"), name)
        raise AttributeError(f"temporal_zoo has no {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
