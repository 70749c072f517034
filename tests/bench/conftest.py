"""Mixers that misbehave, entered under a name for the length of one test."""

import pytest
import torch

from bench import gate
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
