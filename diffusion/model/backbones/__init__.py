"""One file per backbone: `model.backbone` is the file's name, and the file defines a class `Network`, a `Backbone`.

Files whose names begin with an underscore hold shared parts.
"""

from __future__ import annotations

from importlib import import_module

from diffusion.config import ModelConfig
from diffusion.model.backbone import Backbone
from temporal_zoo._support import submodules
from temporal_zoo.config import ConfigError, nearest
from temporal_zoo.spec import MixerSpec


def names() -> list[str]:
    """The names of all backbones; imports none of them."""
    return submodules.names(__name__)


def get(name: str) -> type[Backbone]:
    """The class of a backbone.

    Raises:
        ConfigError: no backbone has that name; the message lists all names.
    """
    if name not in names():
        raise ConfigError(f"no backbone is named {name!r}{nearest(name, names())}; choose from {', '.join(names())}")
    return import_module(f"{__name__}.{name}").Network


def build_network(config: ModelConfig, *, seed: int | None = None) -> Backbone:
    """The network of a configuration; `seed` as in `Backbone`."""
    return get(config.backbone)(config, seed=seed)


def mixers(config: ModelConfig) -> dict[str, MixerSpec]:
    """Slot -> spec of its mixer, without building the network.

    Raises:
        ConfigError, UnknownMixer: an unknown backbone, or see `diffusion.model.slots.assign`.
    """
    return get(config.backbone).mixers(config)
