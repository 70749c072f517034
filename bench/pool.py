"""Processes that plan beside each other: counting on the meta device is Python, which uses one core."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from temporal_zoo.environment import usable_cores

_MOST = 8  # beyond them starting takes longer than working


def planners() -> ProcessPoolExecutor:
    """One process for each core."""
    # Not forked: threads of torch may have begun in this process.
    return ProcessPoolExecutor(min(usable_cores(), _MOST), mp_context=get_context("spawn"))
