"""Cells within a budget: equal parameters, equal stored bytes, equal seconds."""

import json

import pytest

from diffusion.ablations.budget import Budget
from diffusion.ablations.fit_budget import fit
from diffusion.ablations.network_cost import network_cost


@pytest.mark.parametrize("kind", ["parameters", "stored_bytes"])
def test_the_width_is_solved_for(base, mixers, kind, tmp_path):
    wide = base.override(["train.model.width=24"])
    cells = [wide.override([change]) for change in mixers.values()]
    fitted = fit(cells, Budget(kind), device="cpu", folder=tmp_path)
    target = getattr(network_cost(cells[0].train, "cpu"), kind)
    assert fitted[0].recipe == cells[0]
    assert fitted[0].off == 0
    for entry in fitted:
        train = entry.recipe.train
        assert getattr(network_cost(train, "cpu"), kind) / target - 1 == pytest.approx(entry.off)
        assert entry.matched == (abs(entry.off) <= 0.1)
        # No other width is nearer.
        for width in (train.model.width - 2, train.model.width + 2):
            other = train.replace(model=train.model.replace(width=width))
            assert abs(getattr(network_cost(other, "cpu"), kind) / target - 1) >= abs(entry.off)


@pytest.mark.parametrize("target", [1, 1e12])
def test_a_target_out_of_reach_has_no_match(base, target, tmp_path):
    (entry,) = fit([base], Budget("parameters", target), device="cpu", folder=tmp_path)
    assert not entry.matched


def test_equal_seconds_are_steps_at_the_speed_that_was_measured_once(base, tmp_path):
    budget = Budget("seconds", 10.0)
    (entry,) = fit([base], budget, device="cpu", folder=tmp_path)
    ((key, speed),) = json.loads((tmp_path / "speeds.json").read_text()).items()
    assert entry.recipe.train.steps == max(1, round(10 / speed))
    (tmp_path / "speeds.json").write_text(json.dumps({key: 0.5}))
    (again,) = fit([base], budget, device="cpu", folder=tmp_path)
    assert again.recipe.train.steps == 20
