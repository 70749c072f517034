"""The registry of mixers.  It finds a mixer by its file in `mixers/`, by an entry point, or by `@register`."""

from __future__ import annotations

import math
import pkgutil
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from temporal_zoo.config import hints, nearest
from temporal_zoo.errors import InvalidInput, warn_renamed
from temporal_zoo.spec import MixerSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from temporal_zoo.interface import Mixer

    AnyMixer = TypeVar("AnyMixer", bound=Mixer)

# The group of entry points in which other packages name their mixers.
GROUP = "temporal_zoo.mixers"

Growth = Literal["1", "T", "T log T", "T^2"]
# 8 GiB in float32: several times the largest layer of any published model.  A larger mixer is a mistake, and the system
# may end the process when it asks for such memory.
MOST_NUMBERS = 2**31
# Keywords of `build`, and the word of specs for a set of options: no option can have such a name.
RESERVED = ("dim", "shared", "device", "dtype", "flavour")


class UnknownMixer(InvalidInput, LookupError):
    """No mixer has that name; the message gives the nearest name and the full list."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A registered mixer; `time` and `memory` declare its growth with the number of frames T."""

    name: str
    mixer: type[Mixer]
    summary: str
    paper: str
    time: Growth
    memory: Growth
    home: str
    formerly: tuple[str, ...] = ()

    @property
    def causal(self) -> bool | None:
        """Whether the mixer is causal with its default options; None if its class does not say."""
        return getattr(self.mixer, "causal", None)

    @property
    def stateful(self) -> bool:
        """Whether the mixer with its default options can be evaluated chunk by chunk (see `StatefulMixer`)."""
        return bool(getattr(self.mixer, "passes", ()))


_entries: dict[str, Entry] = {}


def register(
    name: str, *, summary: str, paper: str, time: Growth, memory: Growth, formerly: tuple[str, ...] = ()
) -> Callable[[type[AnyMixer]], type[AnyMixer]]:
    """Class decorator that registers a mixer under `name`.

    Args:
        name: lower-case letters, digits and hyphens; for a file in `temporal_zoo/mixers/`, the file's name.
        summary: one line for tables.
        paper: arXiv id or other source of the equation.
        time, memory: declared growth in frames, "1", "T", "T log T" or "T^2"; the bench also prints the measured one.
        formerly: earlier names of the mixer.  Old specs still load, with a DeprecationWarning.
    Raises:
        InvalidInput: a name, a growth or an option's name that cannot be used, or a name that another mixer has.
    """

    def enter(mixer: type[AnyMixer]) -> type[AnyMixer]:
        home = f"{mixer.__module__}.{mixer.__qualname__}"
        # Specs, lists of specs and slots use the other characters.
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise InvalidInput(f"{name!r} cannot name a mixer: lower-case letters, digits and hyphens, a letter first")
        for growth in (time, memory):
            if growth not in get_args(Growth):
                raise InvalidInput(
                    f"mixer {name!r} declares a growth of {growth!r}; known are {', '.join(get_args(Growth))}"
                )
        for option in hints(mixer.Config):
            if option in RESERVED:
                raise InvalidInput(f"mixer {name!r} has an option {option!r}, which is an argument of build; rename it")
        owner = _entries[name].home if name in _entries else _owner(name)
        # Re-running a notebook cell or reloading a module registers the same class again, and an entry point may name a
        # package that gathers mixers from its modules: neither is a clash.
        if owner is not None and owner != home and not home.startswith(f"{owner}."):
            raise InvalidInput(f"two mixers are named {name!r}: {owner} and {home}; rename one")
        _entries[name] = Entry(
            name=name,
            mixer=mixer,
            summary=summary,
            paper=paper,
            time=time,
            memory=memory,
            home=home,
            formerly=formerly,
        )
        mixer.registered_name = name
        return mixer

    return enter


def names(*patterns: str, causal: bool | None = None, stateful: bool | None = None) -> list[str]:
    """Names of mixers, sorted.  It builds no mixer, and imports mixers only to apply the two filters.

    Args:
        patterns: shell patterns such as "*mamba*"; a name that matches one of them is listed.  All names without any.
        causal: only mixers that are causal with their default options (True), or that are not (False).
        stateful: the same for mixers that can be evaluated chunk by chunk (`StatefulMixer`).
    Raises:
        InvalidInput: a filter needs a mixer that cannot be imported.
    """
    listed = sorted({*_files(), *_plugins(), *_entries})
    if patterns:
        listed = [name for name in listed if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if causal is not None:
        listed = [name for name in listed if get(name).causal is causal]
    if stateful is not None:
        listed = [name for name in listed if get(name).stateful is stateful]
    return listed


def get(name: str) -> Entry:
    """The entry of one mixer; imports its module.

    Raises:
        UnknownMixer: with the nearest name and the full list.
    """
    if name not in _entries:
        if (home := _owner(name)) is None:
            return _renamed(name)
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


def build(
    spec: str | MixerSpec,
    /,
    dim: int,
    *,
    shared: nn.Module | None = None,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Mixer:
    """Builds a mixer of width `dim`: `build("bimamba", 64, state=32)`, or as text `build("bimamba:state=32", 64)`.

    Args:
        spec: a name, a text such as "bimamba:state=32:conv=4", or a `MixerSpec`.
        dim: width of the frames that the mixer will see.
        shared: the module that several mixers of one network share (`Mixer.make_shared`); by default the mixer has one
            of its own.
        device: where the parameters are created; by default on torch's current default device.
        dtype: of the parameters, a float dtype.  Initial values are drawn in torch's default dtype and then converted,
            so that a seed gives the same mixer as `build(...).to(dtype)`.
        options: options of the mixer as Python values; they override those of `spec`.
    Raises:
        UnknownMixer: no such mixer.
        ConfigError: an option that the mixer does not have, or a value that it does not take.
        InvalidInput: `dim`, `device` or `dtype` cannot be used, or the mixer would hold more than `MOST_NUMBERS`
            numbers.
    """
    spec = MixerSpec.parse(spec) if isinstance(spec, str) else spec
    if not isinstance(dim, int) or not 1 <= dim <= MOST_NUMBERS:
        raise InvalidInput(f"dim is {dim!r}; a mixer's width is a whole number in 1..{MOST_NUMBERS}")
    mixer, config = get(spec.name).mixer, spec.config(**options)
    if not _has_possible_size(mixer, dim, config):
        raise InvalidInput(
            f"{spec} of width {dim} would hold more than {MOST_NUMBERS:,} numbers in its parameters and buffers; "
            "choose smaller sizes"
        )
    with nullcontext() if device is None else _device(device):
        built = mixer(dim, config, shared=shared)
    return built if dtype is None else _converted(built, dtype)


def _device(device: torch.device | str | int) -> torch.device:
    import torch

    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidInput(f"device is {device!r}; write for example 'cpu', 'cuda:0' or 'meta'") from error


def _converted(mixer: Mixer, dtype: torch.dtype) -> Mixer:
    import torch

    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InvalidInput(f"dtype is {dtype!r}; the weights of a mixer take a float dtype, such as torch.bfloat16")
    return mixer.to(dtype)


def _renamed(name: str) -> Entry:
    """The entry of the mixer that once had this name; imports all mixers, which happens for unknown names only."""
    for present in names():
        try:
            entry = get(present)
        except Exception:  # a plug-in that cannot be imported must not hide the names of the others
            continue
        if name in entry.formerly:
            warn_renamed(f"mixer {name!r} is now called {entry.name!r}")
            return entry
    raise UnknownMixer(f"no mixer is named {name!r}{nearest(name, names())}; choose from {', '.join(names())}")


def _has_possible_size(mixer: type[Mixer], dim: int, config: Any) -> bool:
    """Whether the mixer stays within `MOST_NUMBERS`; counted on the meta device, which takes no memory."""
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
        # Sizes beyond 64 bits.  Another failure would come again on the real device, with its full message.
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
