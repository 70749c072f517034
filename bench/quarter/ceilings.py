"""What a device can do at best, measured: bytes copied and exponentials computed in a second; and its clock."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

# Bytes of the copies, and of what is written before a round: far more than any cache holds.
_LARGE = {"cuda": 2**30, "cpu": 2**22}
# So often it is written: a millisecond or more, in which Python launches the kernels of the round.
_WRITES = 4
_ROUNDS = 10
_PROGRAMS, _BLOCK, _REPEATS = 4096, 1024, 1024


def milliseconds(step: Callable[[], object], device: str) -> float:
    """What one step takes on the device; what was launched before has ended, and the caches hold none of its inputs."""
    buffer = _buffer(device)
    if not device.startswith("cuda"):
        buffer.zero_()
        begun = time.perf_counter()
        step()
        return 1000 * (time.perf_counter() - begun)
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
    """`copy_bytes_per_s`, read and written, and `exps_per_s`, None where Triton cannot measure it."""
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
    except Exception:  # of Triton, which may be missing or broken in any way; the floor is then left out
        return None
    return out.numel() * _REPEATS / seconds


def _seconds(step: Callable[[], object], device: str) -> float:
    step()
    return statistics.median(milliseconds(step, device) for _ in range(_ROUNDS)) / 1000


@functools.cache
def _buffer(device: str) -> Tensor:
    return torch.zeros(_LARGE[device.partition(":")[0]], dtype=torch.uint8, device=device)
