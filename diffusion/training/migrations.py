"""Formats of checkpoints: one function per change converts the content of a file to the next format.

When the content of checkpoints changes, append a function to `MIGRATIONS` and add files of the old format to
`tests/old`.  A new field of a configuration needs no function if its default means the earlier behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusion.model.backbones import unet
from diffusion.model.mixer_text import SILENT, as_first_meant
from diffusion.model.slots import assign
from temporal_zoo.config import to_text
from temporal_zoo.spec import MixerSpec


def _to_2(content: dict[str, Any]) -> dict[str, Any]:
    """Writes all options of mixers, and names shared modules after the first slot that uses them.

    Format 1 left out options with their defaults, also in the names of shared modules ("shared.attn:heads=4").
    """
    model = dict(content["config"]["model"])
    model["mixer"] = as_first_meant(model["mixer"])
    slots: dict[str, str] = {}
    for slot, spec in assign(model["mixer"], unet.slots(len(model["multipliers"])), tuple(model["slots"])).items():
        slots.setdefault(_shared_name_1(spec), slot)

    def renamed(name: str) -> str:
        root, _, rest = name.partition(".")
        spec, _, rest = rest.partition(".")
        return f"shared.{slots[spec]}.{rest}" if root == "shared" else name

    states = {part: content[part] for part in ("network", "average") if part in content}
    return (
        content
        | {"config": content["config"] | {"model": model}}
        | {part: {renamed(name): tensor for name, tensor in state.items()} for part, state in states.items()}
    )


def _shared_name_1(spec: MixerSpec) -> str:
    config, silent = spec.config(), SILENT.get(spec.name)
    if silent is None:  # a mixer of another package
        return str(spec).replace(".", "_")
    options = {name: to_text(getattr(config, name)) for name in silent}
    kept = tuple((name, value) for name, value in options.items() if value != silent[name])
    return str(MixerSpec(spec.name, kept)).replace(".", "_")


# From format 1 to 2, from 2 to 3, ...
MIGRATIONS: list[Callable[[dict[str, Any]], dict[str, Any]]] = [_to_2]
FORMAT = 1 + len(MIGRATIONS)


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint in the present format.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the content does not have the form of its format.
    """
    for migrate in MIGRATIONS[content["format"] - 1 :]:
        content = migrate(content)
    return content | {"format": FORMAT}
