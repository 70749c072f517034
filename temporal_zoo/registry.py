"""Which mixers exist.  A mixer is found, never listed: by its file in `mixers/`, an entry point, or `@register`."""

from __future__ import annotations

import math
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from temporal_zoo.config import nearest
from temporal_zoo.errors import InvalidInput
from temporal_zoo.spec import MixerSpec

if TYPE_CHECKING:
    from torch import nn

    from temporal_zoo.interface import Mixer

GROUP = "temporal_zoo.mixers"

Growth = Literal["1", "T", "T log T", "T^2"]
# 8 GiB in float32: several times the largest layer of any published model.  Larger ones are mistakes, and asking for
# their memory would end the process.
MOST_NUMBERS = 2**31


class UnknownMixer(InvalidInput, LookupError):
    """No mixer has that name; the message gives the nearest one and the full list."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the registry knows of a mixer; `time` and `memory` declare its growth with the number of frames T."""

    name: str
    mixer: type[Mixer]
    summary: str
    paper: str
    time: Growth
    memory: Growth
    home: str


_entries: dict[str, Entry] = {}


def register(
    name: str, *, summary: str, paper: str, time: Growth, memory: Growth
) -> Callable[[type[Mixer]], type[Mixer]]:
    """Class decorator: enters a mixer under `name`.

    Args:
        name: lower-case letters, digits and hyphens; for a file in `temporal_zoo/mixers/`, the file's name.
        summary: one line for tables.
        paper: arXiv id or other source of the equation.
        time, memory: declared growth in frames, "1", "T", "T log T" or "T^2"; the bench prints the measured one beside.
    """

    def enter(mixer: type[Mixer]) -> type[Mixer]:
        home = f"{mixer.__module__}.{mixer.__qualname__}"
        # Specs, lists of specs and slots use the other characters.
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise InvalidInput(f"{name!r} cannot name a mixer: lower-case letters, digits and hyphens, a letter first")
        for growth in (time, memory):
            if growth not in get_args(Growth):
                raise InvalidInput(
                    f"mixer {name!r} declares a growth of {growth!r}; known are {', '.join(get_args(Growth))}"
                )
        owner = _entries[name].home if name in _entries else _owner(name)
        # Re-running a notebook cell or reloading a module enters the same class again, and an entry point may name a
        # package that gathers mixers from its modules: neither is a clash.
        if owner is not None and owner != home and not home.startswith(f"{owner}."):
            raise InvalidInput(f"two mixers are named {name!r}: {owner} and {home}; rename one")
        _entries[name] = Entry(
            name=name, mixer=mixer, summary=summary, paper=paper, time=time, memory=memory, home=home
        )
        return mixer

    return enter


def names() -> list[str]:
    """Names of all mixers, sorted; imports none of them."""
    return sorted({*_files(), *_plugins(), *_entries})


def get(name: str) -> Entry:
    """The entry of one mixer; imports its module.

    Raises:
        UnknownMixer: with the nearest name and the full list.
    """
    if name not in _entries:
        if (home := _owner(name)) is None:
            raise UnknownMixer(f"no mixer is named {name!r}{nearest(name, names())}; there are {', '.join(names())}")
        if name in _files() and name in _plugins():
            raise InvalidInput(
                f"two mixers are named {name!r}: temporal_zoo.mixers.{name} and {_plugins()[name].value}"
            )
        try:
            import_module(home)
        except ImportError as error:
            raise InvalidInput(f"the mixer {name!r} cannot be loaded from {home}: {error}") from error
        if name not in _entries:
            raise InvalidInput(f"{home} registers no mixer named {name!r}; its @register must carry that name")
    return _entries[name]


def build(spec: str | MixerSpec, dim: int, *, shared: nn.Module | None = None) -> Mixer:
    """A mixer of width `dim` from its name or its spec: `build("bimamba:state=32", dim=64)`.

    Args:
        spec: a name, a text such as "bimamba:state=32:conv=4", or a `MixerSpec`.
        dim: width of the frames that the mixer will see.
        shared: what several mixers of one network have in common (`Mixer.make_shared`); without it, it has its own.
    Raises:
        UnknownMixer: no such mixer.
        ConfigError: an option that the mixer does not have, or a value that it does not take.
        InvalidInput: a width that is none, or a mixer that would hold more than `MOST_NUMBERS` numbers.
    """
    spec = MixerSpec.parse(spec) if isinstance(spec, str) else spec
    if not isinstance(dim, int) or not 1 <= dim <= MOST_NUMBERS:
        raise InvalidInput(f"dim is {dim!r}; a mixer's width is a whole number in 1..{MOST_NUMBERS}")
    mixer, config = get(spec.name).mixer, spec.config()
    if not _has_possible_size(mixer, dim, config):
        raise InvalidInput(
            f"{spec} of width {dim} would hold more than {MOST_NUMBERS:,} numbers in its parameters and buffers; "
            "choose smaller sizes"
        )
    return mixer(dim, config, shared=shared)


def _has_possible_size(mixer: type[Mixer], dim: int, config: Any) -> bool:
    """Whether the mixer stays within `MOST_NUMBERS`; found out without taking memory."""
    sizes = [value for value in config.to_dict().values() if isinstance(value, int)]
    # Weights have two axes, each a product of sizes: small mixers, which are most, need no count.
    if (dim * math.prod(max(1, size) for size in sizes)) ** 2 <= MOST_NUMBERS:
        return True
    import torch

    try:
        with torch.device("meta"):
            built = mixer(dim, config)
        return sum(tensor.numel() for tensor in (*built.parameters(), *built.buffers())) <= MOST_NUMBERS
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        # Sizes beyond 64 bits.  Another failure would come again on the real device, where it is told in full.
        return "overflow" not in str(error).lower() and not isinstance(error, (OverflowError, MemoryError))


def _owner(name: str) -> str | None:
    if name in _files():
        return f"temporal_zoo.mixers.{name}"
    plugin = _plugins().get(name)
    return plugin.module if plugin else None


def _files() -> list[str]:
    folder = Path(__file__).parent / "mixers"
    return [module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_")]


@cache
def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        value = found.setdefault(point.name, point).value
        if value != point.value:
            raise InvalidInput(f"two packages ship a mixer named {point.name!r}: {value} and {point.value}")
    return found
