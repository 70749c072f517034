"""The device that a command runs on, and its arithmetic."""

from __future__ import annotations

import torch

from temporal_zoo._support.arithmetic import set_arithmetic
from temporal_zoo.errors import InvalidInput


def open_device(name: str) -> torch.device:
    """The device of that name; also sets this process's arithmetic (`temporal_zoo._support.arithmetic`).

    Raises:
        InvalidInput: this machine has no such device; the message lists those that it has.
    """
    set_arithmetic()
    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not (str(device) in available or (name == "cuda" and len(available) > 1)):
        raise InvalidInput(f"there is no device {name!r} here; choose from {', '.join(available)}")
    return device
