"""What an exception means for the process in which it was raised."""

from __future__ import annotations

import torch


def context_error(device: str) -> str | None:
    """Why nothing can be computed on the device any more, as after an illegal memory access; None when it can."""
    if not device.startswith("cuda"):
        return None
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except Exception as error:
        return first_line(error)
    return None


def first_line(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
