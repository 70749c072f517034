"""What all tests share: one thread and one seed, so that a test means the same alone and beside others."""

import gc
import os

# Read by the processes that tests start, and by torch when it is imported below.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


def pytest_configure():
    torch.set_num_threads(1)


def pytest_collection_finish():
    """What was imported stays until the end: without it, a collection of garbage takes a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def rng():
    """A generator of its own for tests that draw many numbers."""
    return torch.Generator().manual_seed(0)
