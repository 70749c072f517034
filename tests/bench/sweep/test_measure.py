"""Timed rounds: warm-up, budget, and caches that are emptied before every round."""

import pytest
import torch

from bench.sweep import host_memory, measure
from bench.sweep.outcome import Times

CPU = torch.device("cpu")


class Clock:
    """Replaces the module `time`: elapsed time and processor time, in seconds, pass only when a step spends them."""

    def __init__(self):
        self.elapsed = self.processor = 0.0

    def perf_counter(self):
        return self.elapsed

    def process_time(self):
        return self.processor

    def spend(self, ms, busy=1.0):
        """Lets `ms` pass; the processor works for that fraction of it."""
        self.elapsed += ms / 1000
        self.processor += busy * ms / 1000


@pytest.fixture
def clock(monkeypatch):
    """Replaces the clock of `measure`; the caches are not emptied."""
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure, "_cache_emptier", lambda device: lambda: None)
    return clock


def test_warm_up_lasts_until_rounds_no_longer_get_faster(clock):
    rounds = iter([50, 20, 10, 9.8, *[10] * 6])
    times = measure.time_ms(lambda: clock.spend(next(rounds)), CPU, budget_s=0.1)
    assert (times.warmups, times.rounds, times.steady) == (5, 5, True)
    assert times.p50 == pytest.approx(10)


def test_rounds_that_agree_use_a_part_of_the_budget(clock):
    # A fifth of the budget in rounds of 10 ms; the sum has rounding errors.
    assert measure.time_ms(lambda: clock.spend(10), CPU, budget_s=2.0).rounds in (40, 41)


def test_a_step_that_takes_minutes_is_timed_once(clock):
    times = measure.time_ms(lambda: clock.spend(60_000), CPU, budget_s=1.0)
    assert (times.warmups, times.rounds, times.steady) == (1, 1, False)


def test_waiting_is_not_working(clock):
    waiting = measure.time_ms(lambda: clock.spend(10, busy=0.1), CPU, budget_s=0.05)
    assert waiting.processor == pytest.approx(1)
    assert waiting.waited
    assert not Times(9, 10, 11, 5, 2, True, processor=19).waited
    assert not Times(9, 10, 11, 5, 2, True).waited


def test_rounds_stop_at_the_budget_and_are_not_steady(clock):
    rounds = iter([900, *[400, 800, 900, 500] * 5])
    times = measure.time_ms(lambda: clock.spend(next(rounds)), CPU, budget_s=1.0)
    assert times.rounds == 3
    assert not times.steady
    assert times.p10 < times.p50 < times.p90


def test_the_cache_is_emptied_before_every_round(monkeypatch, clock):
    emptied = []
    monkeypatch.setattr(measure, "_cache_emptier", lambda device: lambda: emptied.append(len(emptied)))
    times = measure.time_ms(lambda: clock.spend(1), CPU, budget_s=0.01)
    assert len(emptied) == times.warmups + times.rounds
    assert len(times.each) == times.rounds
    assert 2 * host_memory.cache_bytes() >= 2**20
