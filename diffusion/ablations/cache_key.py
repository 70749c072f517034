"""The part of a recipe that names its result files: every setting that the result depends on, in a stable form.

A key holds every field and, of mixers, every option that differs from the meaning of a missing option
(`diffusion.model.mixer_text.key`).  A new default therefore changes only the keys of the configurations that it
changes; other results are still found.
"""

from __future__ import annotations

from typing import Any

from diffusion.config import TrainConfig
from diffusion.model.mixer_text import key
from temporal_zoo.config import Config

# Fields that were added after the first results: "model.new_field" -> the value that older results had.  A key omits
# such a field while it has this value.  Add every new field of a configuration here.
ADDED_FIELDS: dict[str, Any] = {"model.backbone": "unet"}


def train_key(train: TrainConfig) -> dict[str, Any]:
    """The key of a training run."""
    return config_key(train.replace(model=train.model.replace(mixer=key(train.model.mixer))))


def config_key(config: Config) -> dict[str, Any]:
    """Plain values of a configuration, without added fields that have their old value."""
    return _without_added_fields(config.to_dict(), "")


def _without_added_fields(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name: _without_added_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in values.items()
        if f"{prefix}{name}" not in ADDED_FIELDS or value != ADDED_FIELDS[f"{prefix}{name}"]
    }
