"""Devices of plans: the name of a GPU, or a number of bytes.  Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass

from temporal_zoo.config import ConfigError, nearest

GIB = 2**30
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": GIB}
# Memory of a GPU that torch's allocator cannot use: that of the driver and of the CUDA context with its kernels.
CONTEXT = GIB


@dataclass(frozen=True)
class Device:
    """A device and its memory.

    Args:
        name: name for messages and tables.
        type: "cuda" or "cpu".
        memory_bytes: memory that a process can use.
        capability: compute capability of a GPU.
    """

    name: str
    type: str
    memory_bytes: int
    capability: tuple[int, int] = (8, 0)

    @property
    def usable_bytes(self) -> int:
        """Memory for tensors."""
        return self.memory_bytes - (CONTEXT if self.type == "cuda" else 0)


# Memory as the driver reports it, which a process can use; data sheets give rounder numbers.
GPUS = {
    "rtx3090": ("RTX 3090", 24_576, (8, 6)),
    "rtx4090": ("RTX 4090", 24_564, (8, 9)),
    "l4": ("L4", 23_034, (8, 9)),
    "v100-32gb": ("V100 32 GB", 32_768, (7, 0)),
    "a100-40gb": ("A100 40 GB", 40_960, (8, 0)),
    "l40s": ("L40S", 46_068, (8, 9)),
    "a100-80gb": ("A100 80 GB", 81_920, (8, 0)),
    "h100": ("H100 80 GB", 81_559, (9, 0)),
    "h200": ("H200", 143_771, (9, 0)),
}


def device(text: str) -> Device:
    """The device for a text: "a100-40gb", "cpu:16GiB", or a number of bytes such as "24GiB" (a GPU like an A100).

    Raises:
        ConfigError: the text names no device and no number of bytes.
    """
    key = text.strip().lower()
    if key in GPUS:
        name, mib, capability = GPUS[key]
        return Device(name, "cuda", mib * 2**20, capability)
    kind, colon, amount = key.rpartition(":")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", amount)
    if match and match[2] in _UNITS and kind in ("", "cpu") and bool(colon) == bool(kind):
        amount_bytes = float(match[1]) * _UNITS[match[2]]
        # A CUDA context alone needs 1 GiB, so a smaller number probably lacks its unit.
        if GIB < amount_bytes < 2**60:
            size = int(amount_bytes)
            return Device(f"{'CPU' if kind else 'GPU'} with {size / GIB:.3g} GiB", kind or "cuda", size)
    raise ConfigError(
        f"unknown device {text!r}{nearest(key, GPUS)}; choose from {', '.join(GPUS)}, or give more than 1 GiB: "
        "24GiB for a GPU, cpu:16GiB for a CPU"
    )


def like(name: str, memory_bytes: int) -> str:
    """The text with which `device` finds a GPU of that name and memory: a name in `GPUS`, or else the memory."""
    keys = [key for key in GPUS if key.partition("-")[0] in name.lower()]
    near = [key for key in keys if abs(device(key).memory_bytes - memory_bytes) < memory_bytes / 10]
    return (near or [f"{memory_bytes / GIB:.1f}GiB"])[0]
