"""Errors that make a CUDA context unusable."""

from __future__ import annotations

import torch

from bench.sweep.outcome import first_line


def context_error(device: str) -> str | None:
    """Why the device cannot compute any more, such as after an illegal memory access; None if it can."""
    if not device.startswith("cuda"):
        return None
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except Exception as error:
        return first_line(error)
    return None
