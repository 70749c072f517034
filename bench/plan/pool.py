"""Processes that plan beside each other: counting on the meta device is Python, which uses one core."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from temporal_zoo._support.environment import usable_cores
from temporal_zoo._support.processes import end_with_parent

_MOST = 8  # beyond them starting takes longer than working


def planners() -> ProcessPoolExecutor:
    """One process for each core.

    Ctrl-C ends them at once, and not when all is counted that waits for them; they end with this process, also when it
    is killed.
    """
    # Not forked: threads of torch may have begun in this process.
    return ProcessPoolExecutor(
        min(usable_cores(), _MOST),
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(),),
    )


def _begin(parent: int) -> None:
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
