"""A reproduction with made-up counts."""

import pytest

from bench.paper import facts, reproduce
from bench.plan.devices import GIB


@pytest.fixture
def made_up():
    """A function that makes a reproduction whose counts are a constant below the paper's numbers."""

    def make(constant_gib=2.0, stray=1.0):
        """`stray` multiplies the count of the first entry."""
        counts = [int(entry.memory_gb * GIB - 8 * constant_gib * GIB) for entry in facts.MEMORY]
        counts[0] = int(counts[0] * stray)
        rows = [
            reproduce.CountedMemory(entry, "attn", stored=count // 2, reserved=count, first=0)
            for entry, count in zip(facts.MEMORY, counts, strict=True)
        ]
        sizes = tuple(
            reproduce.CountedSize(size, "attn", model.parameters - 16, 16, model.parameters)
            for size, model in facts.MODELS.items()
        )
        return reproduce.Reproduction(sizes, tuple(rows), reproduce.fitted(rows))

    return make
