"""Fixtures: mixers with errors, registered for one test; sweeps without subprocesses; results and records."""

import pytest
import torch

from bench.sweep import gate, host_memory, machine, subprocess
from bench.sweep.case import expand
from bench.sweep.outcome import Outcome, Times
from bench.sweep.results import CaseResult
from bench.sweep.run_case import run_case
from temporal_zoo import registry
from temporal_zoo._support.record import Session
from temporal_zoo.interface import Mixer


@pytest.fixture
def planted():
    """A function that registers a mixer named `planted` with the given `mix`."""
    gate._check.cache_clear()

    def plant(mix):
        class Planted(Mixer):
            causal = False

            def __init__(self, dim, config, shared=None):
                super().__init__(dim, config, shared)
                self.weight = torch.nn.Parameter(torch.ones(dim))

            def mix(self, x, lengths):
                return mix(self, x)

        registry.register("planted", summary="a test's", paper="none", time="T", memory="T")(Planted)

    yield plant
    registry._entries.pop("planted", None)
    gate._check.cache_clear()


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs cases in this process, which has the planted mixers and needs no time to start."""

    def examine(cases, expected=None):
        try:
            here = machine.examine(cases, expected)
        except ValueError as error:
            raise subprocess.BenchError(str(error)) from error
        return here.environment, here.devices

    def measure(self, case, *, budget_s, limit_s, time_only=False, trace=None, sources=None):
        return run_case(case, budget_s=0.01, time_only=time_only, trace=trace)

    monkeypatch.setattr(subprocess, "examine", examine)
    monkeypatch.setattr(subprocess.Workers, "measure", measure)
    monkeypatch.setattr("bench.sweep.machine_load._SAMPLE_S", 0.001)
    # A small cache: twice its size is written before every timed round.
    monkeypatch.setattr(host_memory, "cache_bytes", lambda: 1024)


ENVIRONMENT = {
    "id": "1234abcd",
    "machine": {"processor": "A processor", "usable_cores": 2, "memory_bytes": 2**34, "system": "Linux"},
    "devices": [], "software": {"torch": "2.13", "cuda": None}, "threads": {"torch": 2},
    "code": {"version": "0.1", "commit": "c" * 40, "dirty": False, "sources": "5"},
}  # fmt: skip


@pytest.fixture
def timed():
    """A function that returns an outcome with that time, its spread and stored bytes."""

    def timed(ms, stored=1024, spread=0.02):
        times = Times((1 - spread) * ms, ms, (1 + spread) * ms, 9, 2, True)
        return Outcome("ok", time_ms=times, stored_bytes=stored, declared={"time": "T", "memory": "T"})

    return timed


@pytest.fixture
def results_of():
    """A function that returns results of bare mixers in training, from mixer -> function of frames -> outcome."""

    def results_of(outcomes, **options):
        cases = expand(layers=",".join(outcomes), lengths="16,64,256,1024", level="mixer", mode="train", **options)
        return [CaseResult(case, outcomes[case.mixer](case.frames)) for case in cases]

    return results_of


@pytest.fixture
def linear_and_quadratic(timed):
    """bimamba, whose time is linear, and flash, whose time is quadratic; their times are equal at 128 frames."""
    return {
        "bimamba": lambda n: timed(4.0 * n, stored=1000 * n),
        "flash": lambda n: timed(n * n / 32, stored=2000 * n),
    }


@pytest.fixture
def write_record():
    """A function that writes results to records.jsonl in a folder, under an environment; it returns the folder."""

    def write_record(folder, results, **changes):
        session = Session(folder / "records.jsonl", ENVIRONMENT | changes)
        for result in results:
            session.write("measurement", {"case": result.case.to_dict()} | result.outcome.to_dict())
        return folder

    return write_record
