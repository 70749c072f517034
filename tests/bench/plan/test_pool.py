"""Processes that plan."""

import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest

from bench.plan import pool
from bench.plan.plan import Planner, plans_of
from temporal_zoo.config import ConfigError


def test_processes_plan_and_end_with_ctrl_c(planner, monkeypatch, tiny):
    monkeypatch.setattr(pool, "usable_cores", lambda: 1)
    with pool.planners() as executor:
        without_memory = replace(planner.device, memory_bytes=0)
        assert executor.submit(plans_of, without_memory, [8], tiny).result() == (
            [Planner(without_memory).plan(tiny)],
            0,
        )
        with pytest.raises(ConfigError, match="no preset"):
            executor.submit(plans_of, planner.device, [8], tiny.replace(preset="huge")).result()
        worker = executor.submit(os.getpid).result()
        waiting = [executor.submit(time.sleep, 600) for _ in range(3)]
        os.kill(worker, signal.SIGINT)  # as the terminal does, to all of them
        with pytest.raises(BrokenProcessPool):
            waiting[0].result(timeout=60)
