"""Measures time and memory of a callable in separate passes, so that memory counters do not affect timings."""

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

_MIN_ROUNDS, _MAX_ROUNDS = 5, 200
# A slow step has fewer rounds, and may use the budget several times for them.
_MIN_SLOW_ROUNDS, _SLOW_BUDGETS = 3, 5
_MIN_WARMUPS, _MAX_WARMUPS = 2, 20
# Fraction of the budget: a few short rounds can agree by chance.
_MIN_BUDGET = 0.2
# The median is steady when its uncertainty is below this fraction of it.
_STEADY = 0.03


def time_ms(step: Callable[[], Any], device: torch.device, *, budget_s: float = 2.0) -> Times:
    """Times `step`: warms up until rounds no longer get faster, then times rounds until their median is steady.

    The caches are emptied before every round, outside the timed part.  Warm-up and timed rounds end after `budget_s`
    seconds each, with at least two and three rounds; up to five times that budget if a step is slow.  On a CPU the
    process keeps the memory that it frees (`host_memory.keeping_freed_pages`).
    """
    with host_memory.keeping_freed_pages() if device.type == "cpu" else contextlib.nullcontext():
        return _times(step, device, budget_s)


def _times(step: Callable[[], Any], device: torch.device, budget_s: float) -> Times:
    clock = _cuda_ms if device.type == "cuda" else _host_ms
    empty = _cache_emptier(device)
    warmups: list[float] = []
    while len(warmups) < _MAX_WARMUPS and not _settled(warmups):
        empty()
        warmups.append(clock(step))
        if sum(warmups) > 1000 * budget_s * (1 if len(warmups) >= _MIN_WARMUPS else _SLOW_BUDGETS):
            break
    rounds: list[float] = []
    processor_s, start = 0.0, time.perf_counter()
    while len(rounds) < _MAX_ROUNDS:
        empty()
        before = time.process_time()
        rounds.append(clock(step))
        processor_s += time.process_time() - before
        spent = max(sum(rounds) / 1000, time.perf_counter() - start)
        if len(rounds) >= _MIN_ROUNDS and spent > _MIN_BUDGET * budget_s and _median_uncertainty(rounds) < _STEADY:
            break
        if spent > budget_s * (1 if len(rounds) >= _MIN_SLOW_ROUNDS else _SLOW_BUDGETS):
            break
    processor = 1000 * processor_s / len(rounds) if device.type == "cpu" else None
    p10, p50, p90 = (float(q) for q in np.percentile(rounds, [10, 50, 90]))
    steady = len(rounds) >= _MIN_SLOW_ROUNDS and _median_uncertainty(rounds) < _STEADY
    each = tuple(float(f"{ms:.5g}") for ms in rounds)
    return Times(p10, p50, p90, len(rounds), len(warmups), steady, processor, each)


def peak_memory(step: Callable[[], Any], device: torch.device) -> Memory:
    """The peak memory of one `step`.  The caller runs `step` before, because the first run also allocates caches."""
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
    """Writes a profile of one `step` (torch's profiler) to `path`, for chrome://tracing; an error leaves no file."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    # Without acc_events some versions of torch warn.
    with torch.profiler.profile(activities=activities, record_shapes=True, acc_events=True) as profiler:
        step()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    profiler.export_chrome_trace(str(unfinished))
    unfinished.replace(path)


def _cache_emptier(device: torch.device) -> Callable[[], object]:
    """A function that overwrites the caches, because in training, too, the inputs of a step are not in the cache."""
    if device.type == "cuda":
        size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
        return torch.empty(size, dtype=torch.uint8, device=device).zero_
    buffer = torch.zeros(2 * host_memory.cache_bytes(), dtype=torch.uint8)
    return functools.partial(buffer.add_, 1)


def _settled(warmups: list[float]) -> bool:
    """Whether the last two rounds were less than 10 % faster than the fastest round before them."""
    return len(warmups) > 2 and min(warmups[-2:]) > 0.9 * min(warmups[:-2])


def _median_uncertainty(rounds: list[float]) -> float:
    """Half-width of a box plot's notch, 1.57 IQR / sqrt(n), relative to the median."""
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
