"""What names a recipe in file names: all that its result depends on, in a form that stays as it is.

A key holds every field and, of mixers, every option that differs from what the text means by silence
(`diffusion.model.mixer_text.key`).  A later default therefore changes the key of the configurations that it changes,
and no other; results that are there are found.
"""

from __future__ import annotations

from typing import Any

from diffusion.config import TrainConfig
from diffusion.model.mixer_text import key
from temporal_zoo.config import Config

# Fields that are younger than the first results: "model.new_field" -> the value with which those were made.  A key
# leaves such a field out while it has this value.  Add every new field of a configuration here.
YOUNGER: dict[str, Any] = {"model.backbone": "unet"}


def train_key(train: TrainConfig) -> dict[str, Any]:
    """Of a training run."""
    return plain(train.replace(model=train.model.replace(mixer=key(train.model.mixer))))


def plain(config: Config) -> dict[str, Any]:
    """Plain values of a configuration, without fields that are as they were before they existed."""
    return _without_younger(config.to_dict(), "")


def _without_younger(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name: _without_younger(value, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in values.items()
        if f"{prefix}{name}" not in YOUNGER or value != YOUNGER[f"{prefix}{name}"]
    }
