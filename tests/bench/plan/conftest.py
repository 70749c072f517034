"""A small setup, and a planner for an A100."""

import pytest

from bench.plan.devices import device
from bench.plan.plan import Planner, Setup


@pytest.fixture(scope="package")
def planner():
    return Planner(device("a100-40gb"))


@pytest.fixture(scope="package")
def tiny():
    return Setup(mixer="bimamba", frames=8, clips=2, size=16, preset="tiny")
