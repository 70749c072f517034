"""Processes that plan at the same time, because counting on the meta device is Python code and uses one core."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from temporal_zoo._support.environment import usable_cores
from temporal_zoo._support.processes import end_with_parent

_MAX_PROCESSES = 8  # more processes take longer to start than to plan


def planners() -> ProcessPoolExecutor:
    """A pool with one process for each core.

    Ctrl-C ends the processes immediately, even when plans are waiting.  They also end with this process when it is
    killed.
    """
    # Spawned, because torch may have started threads in this process.
    return ProcessPoolExecutor(
        min(usable_cores(), _MAX_PROCESSES),
        mp_context=get_context("spawn"),
        initializer=_start,
        initargs=(os.getpid(),),
    )


def _start(parent: int) -> None:
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
