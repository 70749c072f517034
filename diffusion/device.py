"""Which device a command runs on, and with which arithmetic."""

from __future__ import annotations

import torch

from temporal_zoo._support.arithmetic import set_arithmetic
from temporal_zoo.errors import InvalidInput


def open_device(name: str) -> torch.device:
    """The device of that name; gives this process the arithmetic of `temporal_zoo._support.arithmetic`.

    Raises:
        InvalidInput: it is not there; the message says which are.
    """
    set_arithmetic()
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not (str(device) in there or (name == "cuda" and len(there) > 1)):
        raise InvalidInput(f"there is no device {name!r} here; there is {', '.join(there)}")
    return device
