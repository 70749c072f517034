"""Interchangeable temporal mixers: `build("bimamba", dim=64)` maps (rows, frames, dim) to the same shape.

Names are loaded on first touch, so that `import temporal_zoo` costs nothing and needs no torch.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "build": "registry",
    "get": "registry",
    "names": "registry",
    "register": "registry",
    "Mixer": "interface",
    "StatefulMixer": "interface",
    "MixerSpec": "spec",
    "UserError": "errors",
    "InvalidInput": "errors",
    "use_backend": "ops",
    "tracing": "ops",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"temporal_zoo has no {name!r}; its public names are {', '.join(__all__)}")
    return getattr(import_module(f"temporal_zoo.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
