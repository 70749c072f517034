"""Checks that this machine can run the cases, and describes it.  Imports torch, so that it runs in a subprocess."""

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


class MachineError(InvalidInput):
    """This machine cannot run a case; the message lists what it can run."""


@dataclass(frozen=True)
class Machine:
    """The environment for the records, and the names of the devices."""

    environment: dict[str, Any]
    devices: str


def examine(cases: Sequence[Case], expected: str | None = None) -> Machine:
    """Describes the machine that runs `cases`.

    Args:
        expected: a part of the device's name, such as "a100"; upper and lower case are equal.
    Raises:
        MachineError: a device, op or backend does not exist here, or the device is not the expected one.
    """
    for device in {case.device for case in cases}:
        _check_device(device)
    for pins in {case.backends: case.pins for case in cases}.values():
        _check_pins(pins)
    facts = environment()
    names = {_name(device, facts) for device in {case.device for case in cases}}
    if expected is not None and (others := [name for name in names if expected.lower() not in name.lower()]):
        raise MachineError(f"the device is {', '.join(others)}, but {expected!r} was expected; nothing was measured")
    threads = torch.get_num_threads()
    on_cpu = any(case.device == "cpu" for case in cases)
    count = f" ({threads} thread{'s' * (threads != 1)})" if on_cpu else ""
    return Machine(facts, ", ".join(sorted(names)) + count)


def _name(device: str, facts: dict[str, Any]) -> str:
    if device == "cpu":
        return facts["machine"]["processor"] or "cpu"
    return facts["devices"][torch.device(device).index or 0]["name"]


def _check_device(text: str) -> None:
    available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    try:
        device = torch.device(text)
    except RuntimeError:
        raise MachineError(f"unknown device {text!r}; choose from {', '.join(available)}") from None
    if str(device) not in available and not (text == "cuda" and len(available) > 1):
        raise MachineError(f"there is no device {text!r}; torch {torch.__version__} sees {', '.join(available)}")


def _check_pins(pins: dict[str, str]) -> None:
    with use_backend(**pins):
        for op, backend in pins.items():
            if backend not in (backends := ops()[op].backends):
                raise MachineError(
                    f"{op} has no backend {backend!r}{nearest(backend, backends)}; choose from {', '.join(backends)}"
                )
