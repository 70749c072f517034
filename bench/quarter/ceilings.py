"""Measures the limits of a device: bytes copied and exponentials computed per second; and times steps on it."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

# Bytes of a copy, and of the buffer that is written before a round: far more than the size of any cache.
_LARGE = {"cuda": 2**30, "cpu": 2**22}
# How often the buffer is written: a millisecond or more, in which Python launches the kernels of the round.
_WRITES = 4
_ROUNDS = 10
_PROGRAMS, _BLOCK, _REPEATS = 4096, 1024, 1024


def milliseconds(step: Callable[[], object], device: str) -> float:
    """The time of one step on the device, after all earlier work has ended, with none of its inputs in the caches."""
    buffer = _buffer(device)
    if not device.startswith("cuda"):
        buffer.zero_()
        start = time.perf_counter()
        step()
        return 1000 * (time.perf_counter() - start)
    torch.cuda.synchronize(device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(_WRITES):
        buffer.zero_()
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end)


@functools.cache
def measured(device: str) -> dict[str, float | None]:
    """`copy_bytes_per_s`, which counts bytes read and written, and `exps_per_s`, None if Triton cannot measure it."""
    buffer = _buffer(device)
    target = torch.empty_like(buffer)
    copies = 2 * buffer.nbytes / _seconds(lambda: target.copy_(buffer), device)
    return {"copy_bytes_per_s": copies, "exps_per_s": _exps_per_s(device)}


def _exps_per_s(device: str) -> float | None:
    if not device.startswith("cuda"):
        x = torch.zeros(2**14)
        return x.numel() / _seconds(lambda: torch.exp(x), device)
    try:
        from ._triton_kernels import exponentials

        out = torch.empty(_PROGRAMS * _BLOCK, device=device)
        seconds = _seconds(lambda: exponentials[_PROGRAMS,](out, REPEATS=_REPEATS, BLOCK=_BLOCK), device)
    except Exception:  # Triton may be missing or broken in many ways; the page then has no floor of exponentials
        return None
    return out.numel() * _REPEATS / seconds


def _seconds(step: Callable[[], object], device: str) -> float:
    step()
    return statistics.median(milliseconds(step, device) for _ in range(_ROUNDS)) / 1000


@functools.cache
def _buffer(device: str) -> Tensor:
    return torch.zeros(_LARGE[device.partition(":")[0]], dtype=torch.uint8, device=device)
