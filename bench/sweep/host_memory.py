"""CPU memory of this process: its peak resident set, and a limit above which allocations raise an exception."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from temporal_zoo._support import control_group

_RESET_PEAK = "5"  # written to /proc/self/clear_refs, this resets the peak; see proc(5)
_LARGE_CACHE = 32 * 2**20
# Parameters of mallopt(3) and their defaults.
_TRIM_THRESHOLD, _DEFAULT_TRIM = -1, 128 * 2**10
_MMAP_MAX, _DEFAULT_MMAPS = -4, 2**16


def peak_resident(step: Callable[[], object]) -> tuple[int, int]:
    """Resident bytes before `step`, and their maximum while it runs.

    Linux records the maximum.  On other systems, or without permission, a thread samples it every millisecond.
    """
    gc.collect()
    _return_freed_pages()
    if _reset_peak():
        before = resident()
        step()
        return before, max(before, _status("VmHWM"))
    return _sampled_peak(step)


def resident() -> int:
    """Resident bytes of this process."""
    import psutil  # inside the function, because measurements on a GPU do not need it

    return psutil.Process().memory_info().rss


@contextlib.contextmanager
def limited(max_bytes: int | None = None) -> Iterator[None]:
    """Inside the block, an allocation that needs more than `max_bytes` in total raises an exception; see `allowance`.

    It works on Linux, which would otherwise kill the process.  On other systems it does nothing.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    more = max(0, (resident() + allowance() if max_bytes is None else max_bytes) - resident())
    limits = [_status("VmData") + more, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextlib.contextmanager
def keeping_freed_pages() -> Iterator[None]:
    """Inside the block the process keeps the memory that it frees, like torch's allocator for CUDA.

    Otherwise the C library returns large blocks to the system, which clears every page before the next use.  That is
    slow, and its time varies.  It works with glibc; with other C libraries it does nothing.
    """
    _set_malloc({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})
    try:
        yield
    finally:
        _set_malloc({_MMAP_MAX: _DEFAULT_MMAPS, _TRIM_THRESHOLD: _DEFAULT_TRIM})


def allowance() -> int:
    """Bytes that a process may allocate: nine tenths of those that are available."""
    return available() * 9 // 10


def cache_bytes() -> int:
    """Size of the processor's largest cache; 32 MiB if the system does not report it."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    with contextlib.suppress(OSError, ValueError):
        return max(1024 * int(path.read_text().strip().removesuffix("K")) for path in sizes)
    return _LARGE_CACHE


def available() -> int:
    """Bytes that this process can still allocate: those of the machine or of its control group, whichever are fewer."""
    import psutil

    free, group = psutil.virtual_memory().available, control_group.available_bytes()
    return free if group is None else min(free, group)


def _status(field: str) -> int:
    """A size from /proc/self/status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        return _status("VmHWM") < resident() * 1.05
    except (OSError, StopIteration):
        return False


def _return_freed_pages() -> None:
    """Returns freed memory to the system; the step would reuse it, and its peak would be too small."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set_malloc(settings: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        for name, value in settings.items():
            ctypes.CDLL(None).mallopt(name, value)


def _sampled_peak(step: Callable[[], object]) -> tuple[int, int]:
    before = peak = resident()
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.001):
            peak = max(peak, resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        step()
    finally:
        stop.set()
        thread.join()
    return before, peak
