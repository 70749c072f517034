"""One file per probe, named after it, with a `Task` named `Probe`.  Files that begin with _ are shared parts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from diffusion.probes import ProbeError
from temporal_zoo._support import submodules
from temporal_zoo.config import nearest

if TYPE_CHECKING:
    from diffusion.probes.task import Task


def names() -> list[str]:
    """The names of all probes; imports none of them."""
    return submodules.names(__name__)


def summary(name: str) -> str:
    """The first line of a probe's docstring, read without an import."""
    return submodules.summary(__name__, name)


def get(name: str) -> type[Task]:
    """The class of a probe.  Raises: ProbeError for an unknown name; the message has the nearest one and the list."""
    if name not in names():
        raise ProbeError(f"unknown probe {name!r}{nearest(name, names())}; choose from {', '.join(names())}")
    return import_module(f"{__name__}.{name}").Probe
