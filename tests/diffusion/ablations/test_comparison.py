"""Comparisons of made-up results, against intervals worked out by hand."""

import math

import pytest

from diffusion.ablations import AblationError
from diffusion.ablations.result import Result


def result(cell, seed, loss, reference=False, **costs):
    measures = {"held_out": loss}
    return Result(dict(cell), seed, reference, measures, [(0, 1.0), (10, loss)], costs, None)


def test_results_come_back_from_their_file(tmp_path):
    kept = Result({"mixer": "s4d"}, 3, True, {"held_out": 0.5, "fvd": 200.0}, [(0, 1.0)], {"step_s": 0.1}, "a/b.png")
    kept.save(tmp_path / "deep" / "result.json")
    assert Result.load(tmp_path / "deep" / "result.json") == kept


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(number):
    with pytest.raises(AblationError, match="s4d, frames 16, seed 2: not finite: held_out, held-out loss at step 10"):
        result({"mixer": "s4d", "frames": "16"}, 2, number)
    with pytest.raises(AblationError, match="step_s"):
        result({"mixer": "s4d"}, 2, 0.5, step_s=number)
