"""Mixers that misbehave, entered under a name for the length of one test; and sweeps without processes."""

import pytest
import torch

from bench.sweep import gate, host_memory
from bench.sweep import machine as site
from bench.sweep import run_case as attempt
from bench.sweep import subprocess as apart
from temporal_zoo import registry
from temporal_zoo.interface import Mixer


@pytest.fixture
def planted():
    """Enters a mixer named `planted` whose `mix` is the function that it is given."""
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
    """Cases run here, where planted mixers are known and no process has to start; processes have tests of their own."""

    def examine(cases, expected=None):
        try:
            found = site.examine(cases, expected)
        except ValueError as error:
            raise apart.BenchError(str(error)) from error
        return found.environment, found.place

    def measure(self, case, *, budget_s, limit_s, clock_only=False, trace=None, sources=None):
        return attempt.run(case, budget_s=0.01, clock_only=clock_only, trace=trace)

    monkeypatch.setattr(apart, "examine", examine)
    monkeypatch.setattr(apart.Workers, "measure", measure)
    monkeypatch.setattr("bench.sweep.load._LISTEN_S", 0.001)
    # Before every round of a clock twice as many bytes are written.
    monkeypatch.setattr(host_memory, "cache_bytes", lambda: 1024)
