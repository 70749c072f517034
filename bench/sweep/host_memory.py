"""The process's own memory on the CPU: its peak resident set, and a limit that turns too much into an exception."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from temporal_zoo._support import control_group

_RESET_PEAK = "5"  # what /proc/self/clear_refs takes to forget the peak; see proc(5)
_LARGE_CACHE = 32 * 2**20
# What mallopt(3) calls the settings, and their usual values.
_TRIM_THRESHOLD, _USUAL_TRIM = -1, 128 * 2**10
_MMAP_MAX, _USUAL_MMAPS = -4, 2**16


def peak_resident(step: Callable[[], object]) -> tuple[int, int]:
    """Bytes resident before `step`, and the most that were while it ran.

    Linux counts the peak itself; elsewhere (or where that is forbidden) a thread looks once a millisecond.
    """
    gc.collect()
    _give_back_freed_pages()
    if _forget_peak():
        before = resident()
        step()
        return before, max(before, _status("VmHWM"))
    return _sampled_peak(step)


def resident() -> int:
    """Bytes of this process that are in memory now."""
    import psutil  # here, because measurements on a GPU need none

    return psutil.Process().memory_info().rss


@contextlib.contextmanager
def limited(most: int | None = None) -> Iterator[None]:
    """Within the block, allocating beyond `most` bytes of this process raises an exception; see `allowance`.

    Linux only, where a process that takes too much is killed instead of refused; elsewhere nothing is done.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    further = max(0, (resident() + allowance() if most is None else most) - resident())
    limits = [_status("VmData") + further, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextlib.contextmanager
def keeping_freed_pages() -> Iterator[None]:
    """Within the block freed memory stays with the process, as CUDA's allocator of torch keeps its own.

    The C library otherwise gives large blocks back to the system, which clears every page when it hands it out again:
    slow, and each time differently so.  glibc only; elsewhere nothing is done.
    """
    _set_malloc({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})
    try:
        yield
    finally:
        _set_malloc({_MMAP_MAX: _USUAL_MMAPS, _TRIM_THRESHOLD: _USUAL_TRIM})


def allowance() -> int:
    """Bytes that a process may take, of those that are free: a tenth is left to the rest of the machine."""
    return available() * 9 // 10


def cache_bytes() -> int:
    """Size of the processor's largest cache; a large one is assumed where the system does not tell."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    with contextlib.suppress(OSError, ValueError):
        return max(1024 * int(path.read_text().strip().removesuffix("K")) for path in sizes)
    return _LARGE_CACHE


def available() -> int:
    """Bytes that this process can still get: the machine's, or its control group's where that is less."""
    import psutil

    free, group = psutil.virtual_memory().available, control_group.available_bytes()
    return free if group is None else min(free, group)


def _status(field: str) -> int:
    """A size from /proc/self/status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        return _status("VmHWM") < resident() * 1.05
    except (OSError, StopIteration):
        return False


def _give_back_freed_pages() -> None:
    """Freed memory that the allocator keeps would be reused unseen and make the peak look smaller than it is."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set_malloc(settings: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        for name, value in settings.items():
            ctypes.CDLL(None).mallopt(name, value)


def _sampled_peak(step: Callable[[], object]) -> tuple[int, int]:
    before = peak = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        step()
    finally:
        done.set()
        thread.join()
    return before, peak
