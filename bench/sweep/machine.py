"""What the machine of a sweep is, and whether it can run the cases; asked in a process of its own: torch tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from temporal_zoo._support.environment import environment
from temporal_zoo.config import nearest
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import ops, use_backend

from .case import Case


class SiteError(InvalidInput):
    """A case that this machine cannot run; the message says what it could."""


@dataclass(frozen=True)
class Site:
    """The environment of the records, and the device in words."""

    environment: dict[str, Any]
    place: str


def examine(cases: Sequence[Case], expected: str | None = None) -> Site:
    """Where `cases` would run.

    Args:
        expected: part of the device's name, in any case of letters, such as "a100".
    Raises:
        SiteError: no such device, op or backend, or another device than expected.
    """
    for device in {case.device for case in cases}:
        _check_device(device)
    for pins in {case.backends: case.pins for case in cases}.values():
        _check_pins(pins)
    found = environment()
    names = {_name(device, found) for device in {case.device for case in cases}}
    if expected is not None and (others := [name for name in names if expected.lower() not in name.lower()]):
        raise SiteError(f"{expected!r} was expected, and this is {', '.join(others)}; nothing was measured")
    threads = torch.get_num_threads()
    on_cpu = any(case.device == "cpu" for case in cases)
    place = f"{', '.join(sorted(names))}{f' ({threads} threads)'.replace('1 threads', '1 thread') if on_cpu else ''}"
    return Site(found, place)


def _name(device: str, found: dict[str, Any]) -> str:
    if device == "cpu":
        return found["machine"]["processor"] or "cpu"
    return found["devices"][torch.device(device).index or 0]["name"]


def _check_device(text: str) -> None:
    here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    try:
        device = torch.device(text)
    except RuntimeError:
        raise SiteError(f"{text!r} is no device; here are {', '.join(here)}") from None
    if str(device) not in here and not (text == "cuda" and len(here) > 1):
        raise SiteError(f"there is no device {text!r} here; torch {torch.__version__} sees {', '.join(here)}")


def _check_pins(pins: dict[str, str]) -> None:
    with use_backend(**pins):
        for op, backend in pins.items():
            if backend not in (backends := ops()[op].backends):
                raise SiteError(
                    f"{op} has no backend {backend!r}{nearest(backend, backends)}; it has {', '.join(backends)}"
                )
