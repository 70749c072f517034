"""The memory limit of a process, and its peak resident set."""

import sys
import threading

import pytest
import torch

from bench.sweep import host_memory, measure

MIB = 2**20


@pytest.mark.parametrize("sampled", [False, True])
def test_peak_resident_set(monkeypatch, sampled):
    samples = threading.Semaphore(0)
    if sampled:
        resident = host_memory.resident
        monkeypatch.setattr(host_memory, "_reset_peak", lambda: False)
        monkeypatch.setattr(host_memory, "resident", lambda: (resident(), samples.release())[0])

    def step():
        held = torch.ones(64 * MIB // 4)
        for _ in range(
            3 if sampled else 0
        ):  # a sample before the step, one that may have begun before it, and one in the step
            assert samples.acquire(timeout=60)
        assert held.nbytes == 64 * MIB

    memory = measure.peak_memory(step, torch.device("cpu"))
    assert memory.counted == "peak resident set"
    assert 0.9 * 64 * MIB < memory.above < 1.3 * 64 * MIB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit needs Linux")
def test_an_allocation_above_the_limit_raises_an_exception(monkeypatch):
    monkeypatch.setattr(host_memory, "available", lambda: 64 * MIB)
    with host_memory.limited(), pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.ones(256 * MIB // 4)
    assert torch.ones(256 * MIB // 4).nbytes == 256 * MIB
