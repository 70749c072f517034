"""Time and memory of a callable, each in a pass of its own: a clock disturbs no allocator and a hook no clock."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import host_memory
from .outcome import Memory, Times

_LEAST_ROUNDS, _MOST_ROUNDS = 5, 200
_LEAST_WHEN_SLOW, _FAR_LONGER = 3, 5
_LEAST_WARMUPS, _MOST_WARMUPS = 2, 20
# Of the budget: a few short rounds that happen to agree say nothing of the percentiles.
_SOONEST = 0.2
# The median is known well enough when its interval (half-width of a box plot's notch) is this share of it.
_STEADY = 0.03


def time_ms(step: Callable[[], Any], device: torch.device, *, budget_s: float = 2.0) -> Times:
    """Times `step`: warm-up until rounds no longer get faster, then rounds until their median is steady.

    Before every round the caches are emptied, which is not timed.  Warm-up and rounds end after `budget_s` seconds
    each, but there are two rounds and three unless they take far longer.  On a CPU freed memory is kept meanwhile
    (`host_memory.keeping_freed_pages`).
    """
    with host_memory.keeping_freed_pages() if device.type == "cpu" else contextlib.nullcontext():
        return _times(step, device, budget_s)


def _times(step: Callable[[], Any], device: torch.device, budget_s: float) -> Times:
    clock = _cuda_ms if device.type == "cuda" else _host_ms
    empty = _cache_emptier(device)
    warmups: list[float] = []
    while len(warmups) < _MOST_WARMUPS and not _settled(warmups):
        empty()
        warmups.append(clock(step))
        if sum(warmups) > 1000 * budget_s * (1 if len(warmups) >= _LEAST_WARMUPS else _FAR_LONGER):
            break
    rounds: list[float] = []
    worked, begun = 0.0, time.perf_counter()
    while len(rounds) < _MOST_ROUNDS:
        empty()
        before = time.process_time()
        rounds.append(clock(step))
        worked += time.process_time() - before
        spent = max(sum(rounds) / 1000, time.perf_counter() - begun)
        if len(rounds) >= _LEAST_ROUNDS and spent > _SOONEST * budget_s and _interval(rounds) < _STEADY:
            break
        if spent > budget_s * (1 if len(rounds) >= _LEAST_WHEN_SLOW else _FAR_LONGER):
            break
    processor = 1000 * worked / len(rounds) if device.type == "cpu" else None
    p10, p50, p90 = (float(q) for q in np.percentile(rounds, [10, 50, 90]))
    steady = len(rounds) >= _LEAST_WHEN_SLOW and _interval(rounds) < _STEADY
    each = tuple(float(f"{ms:.5g}") for ms in rounds)
    return Times(p10, p50, p90, len(rounds), len(warmups), steady, processor, each)


def peak_memory(step: Callable[[], Any], device: torch.device) -> Memory:
    """The most memory in use while `step` runs once; run it before, so that no first-time cost is counted."""
    if device.type != "cuda":
        return Memory("peak resident set", *host_memory.peak_resident(step))
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    reserved = torch.cuda.max_memory_reserved(device)
    return Memory("peak allocated", before, torch.cuda.max_memory_allocated(device), reserved)


def profile(step: Callable[[], Any], device: torch.device, path: Path) -> None:
    """Writes what torch's profiler sees of one `step` to `path`, whole or not at all; chrome://tracing shows it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    # Without acc_events some versions of torch warn, of a profile of one cycle too.
    with torch.profiler.profile(activities=activities, record_shapes=True, acc_events=True) as seen:
        step()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    seen.export_chrome_trace(str(unfinished))
    unfinished.replace(path)


def _cache_emptier(device: torch.device) -> Callable[[], object]:
    """Reads and writes more than the caches hold, so that a round finds its inputs where a training run has them."""
    if device.type == "cuda":
        size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
        return torch.empty(size, dtype=torch.uint8, device=device).zero_
    held = torch.zeros(2 * host_memory.cache_bytes(), dtype=torch.uint8)
    return functools.partial(held.add_, 1)


def _settled(warmups: list[float]) -> bool:
    """Whether two in a row were hardly faster than all before."""
    return len(warmups) > 2 and min(warmups[-2:]) > 0.9 * min(warmups[:-2])


def _interval(rounds: list[float]) -> float:
    low, middle, high = np.percentile(rounds, [25, 50, 75])
    return float(1.57 * (high - low) / np.sqrt(len(rounds)) / middle)


def _host_ms(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - start)


def _cuda_ms(step: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)
