"""The counted sizes and memory, and the fitted constant."""

import pytest

from bench.paper import facts, reproduce
from bench.plan.devices import GIB


def test_the_constant_is_fitted_only_to_its_rows(made_up):
    assert made_up().constant == pytest.approx(2 * GIB, rel=1e-6)
    assert made_up(stray=3).constant == pytest.approx(2 * GIB, rel=1e-6)
    assert made_up().within == 19
    assert made_up(stray=3).within == 18


def test_sizes_agree_to_the_unit_or_not(made_up):
    assert all(row.agrees for row in made_up().sizes)
    total = facts.MODELS["56.3M"].parameters
    assert reproduce.CountedSize("56.3M", "attn", total - 16, 16, total).agrees
    assert not reproduce.CountedSize("56.3M", "attn", total - 15, 16, total).agrees
    assert not reproduce.CountedSize("57.5M", "attn", total - 16, 16, total).agrees


@pytest.mark.parametrize("size", ["14.1M", "56.9M"])
def test_count_one_size_and_one_entry(size):
    assert reproduce._size(size, facts.MODELS[size]).agrees
    entry = next(entry for entry in facts.MEMORY if entry.size == size)
    found = reproduce._memory(entry)
    assert 0 < found.stored < found.reserved
    assert found.first == pytest.approx(12 * facts.MODELS[size].parameters, rel=1e-4)
    assert abs(found.error(2.4 * GIB)) < 0.1
