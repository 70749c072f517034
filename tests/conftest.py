"""One thread and one seed for all tests, so that a test gives the same result alone and with others."""

import gc
import os

# Subprocesses of tests read this, and so does torch when it is imported below.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


def pytest_configure():
    torch.set_num_threads(1)


def pytest_collection_finish():
    """Excludes imported modules from garbage collection, which then takes a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def rng():
    """A generator for tests that draw many numbers."""
    return torch.Generator().manual_seed(0)
