"""Comparisons of invented results, against intervals computed by hand."""

import io
import math

import pytest
from rich.console import Console

from diffusion.ablations import AblationError
from diffusion.ablations.ablation import Contrast
from diffusion.ablations.comparison import cells, control_of, difference, effect, grouped, pairs
from diffusion.ablations.result import Result
from diffusion.ablations.tables import cells_table, rich_table
from diffusion.ablations.text import percent_text, verdict
from diffusion.evaluation.uncertainty import Estimate


def result(cell, seed, loss, reference=False, **costs):
    measures = {"held_out": loss}
    return Result(dict(cell), seed, reference, measures, [(0, 1.0), (10, loss)], costs, None)


def test_a_file_holds_the_whole_result(tmp_path):
    saved = Result({"mixer": "s4d"}, 3, True, {"held_out": 0.5, "fvd": 200.0}, [(0, 1.0)], {"step_s": 0.1}, "a/b.png")
    saved.save(tmp_path / "deep" / "result.json")
    assert Result.load(tmp_path / "deep" / "result.json") == saved


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(number):
    with pytest.raises(AblationError, match="s4d, frames 16, seed 2: not finite: held_out, held-out loss at step 10"):
        result({"mixer": "s4d", "frames": "16"}, 2, number)
    with pytest.raises(AblationError, match="step_s"):
        result({"mixer": "s4d"}, 2, 0.5, step_s=number)


def over_seeds(cell, losses, **more):
    return [result(cell, seed, loss, **more) for seed, loss in enumerate(losses)]


def test_means_have_students_interval_over_seeds():
    (cell,) = cells(over_seeds({"mixer": "s4d"}, [1.0, 2.0, 3.0]))
    estimate = cell.measure("held_out")
    # 4.3027 * 1 / sqrt(3)
    assert (estimate.value, estimate.margin) == (2.0, pytest.approx(2.4842, abs=2e-3))
    assert cell.measure("fvd") is None


def test_differences_are_paired_by_seed():
    one, other = cells(
        over_seeds({"mixer": "a"}, [1.0, 2.0, 6.0]) + over_seeds({"mixer": "b"}, [1.1, 2.2, 6.3])[::-1],
    )
    gap = difference(one, other, "held_out")
    # -0.1, -0.2, -0.3: unpaired, seeds that lie this far apart would leave an interval of several units.
    assert gap.absolute.value == pytest.approx(-0.2)
    assert gap.absolute.margin == pytest.approx(4.3027 * 0.1 / math.sqrt(3), abs=1e-3)
    assert gap.relative.value == pytest.approx((1 / 1.1 + 2 / 2.2 + 6 / 6.3) / 3 - 1)
    assert gap.lower
    assert not gap.higher
    assert gap.seeds == (0, 1, 2)


def test_a_seed_that_one_cell_lacks_does_not_count():
    one, other, absent = cells(
        [*over_seeds({"mixer": "a"}, [1.0, 2.0, 9.0]), *over_seeds({"mixer": "b"}, [2.0, 4.0]),
         result({"mixer": "c"}, 7, 1.0)]
    )  # fmt: skip
    gap = difference(one, other, "held_out")
    assert gap.seeds == (0, 1)
    assert gap.absolute.value == -1.5
    assert gap.relative.value == -0.5
    assert difference(one, absent, "held_out") is None


def test_a_value_that_is_not_above_zero_has_no_relative_difference():
    one, other = cells(over_seeds({"mixer": "a"}, [1.0, 2.0]) + over_seeds({"mixer": "b"}, [0.5, -0.5]))
    gap = difference(one, other, "held_out")
    assert gap.relative is None
    assert gap.shown == gap.absolute


def test_one_seed_gives_no_interval_and_shows_nothing():
    one, other = cells([result({"mixer": "a"}, 0, 1.0), result({"mixer": "b"}, 0, 2.0)])
    gap = difference(one, other, "held_out")
    assert gap.absolute.margin is None
    assert not gap.lower
    assert one.measure("held_out").margin is None
    sentence = verdict(effect([one, other], Contrast("mixer", "a", "b"), "held_out"))
    assert sentence == (
        "mixer a against mixer b: -50.0 % in the held-out loss (1 seed x 1 pair of cells). "
        "One seed gives no interval, so nothing is shown."
    )


def test_two_results_of_one_trial_are_refused():
    with pytest.raises(AblationError, match="s4d, seed 0 has two results"):
        cells([result({"mixer": "s4d", "x": "y"} if twice else {"mixer": "s4d"}, 0, 0.5) for twice in (0, 1, 0)])


def crossed(s4d_both, s4d_one, mamba_both, mamba_one):
    losses = {("s4d", "both"): s4d_both, ("s4d", "one"): s4d_one, ("mamba", "both"): mamba_both,
              ("mamba", "one"): mamba_one}  # fmt: skip
    grid = [
        entry
        for (mixer, directions), values in losses.items()
        for entry in over_seeds({"mixer": mixer, "directions": directions}, values)
    ]
    return cells([*over_seeds({"mixer": "identity"}, [4.0, 4.0, 4.0], reference=True), *grid])


DIRECTIONS = Contrast("directions", "both", "one")


def test_an_effect_averages_pairs_within_a_seed_and_has_its_interval_over_seeds():
    compared = effect(crossed([0.9, 0.8, 0.7], [1.0] * 3, [1.8, 1.8, 1.8], [2.0] * 3), DIRECTIONS, "held_out")
    assert [(gap.first, gap.second) for gap in compared.parts] == [
        ("s4d, both", "s4d, one"),
        ("mamba, both", "mamba, one"),
    ]
    # Seeds: (-0.1 - 0.1) / 2, (-0.2 - 0.1) / 2, (-0.3 - 0.1) / 2.
    assert compared.overall.relative.value == pytest.approx(-0.15)
    assert compared.overall.relative.margin == pytest.approx(4.3027 * 0.05 / math.sqrt(3), abs=1e-4)
    assert verdict(compared) == (
        "directions both lowers the held-out loss by 15.0 % (2.6 to 27.4) against directions one "
        "(95 % interval, 3 seeds x 2 pairs of cells)."
    )


def test_pairs_with_opposite_effects_give_an_exact_zero():
    """s4d gains as much as mamba loses: the mean over both is zero at every seed, without uncertainty."""
    overall = effect(crossed([0.9] * 3, [1.0] * 3, [2.2] * 3, [2.0] * 3), DIRECTIONS, "held_out").overall
    assert overall.relative.value == pytest.approx(0)
    assert overall.relative.margin == pytest.approx(0, abs=1e-12)


def test_seeds_that_lack_a_pair_are_left_out_of_the_effect():
    compared = effect(crossed([0.9, 0.9, 0.1], [1.0] * 3, [1.8, 1.8], [2.0] * 3), DIRECTIONS, "held_out")
    assert compared.overall.seeds == (0, 1)
    assert compared.overall.relative.value == pytest.approx(-0.1)
    assert compared.parts[0].seeds == (0, 1, 2)


def test_verdicts_follow_the_interval_even_against_the_claim():
    worse = crossed([1.10, 1.11, 1.12], [1.0] * 3, [2.2] * 3, [2.0] * 3)
    assert "raises the held-out loss by" in verdict(effect(worse, DIRECTIONS, "held_out"))
    assert verdict(effect(worse, DIRECTIONS, "held_out")).endswith("The claim was that it lowers it.")
    unclear = crossed([0.9, 1.0, 1.05], [1.0] * 3, [2.0] * 3, [2.0] * 3)
    assert "no difference shown in the held-out loss: -0.8 % (-" in verdict(effect(unclear, DIRECTIONS, "held_out"))
    none = verdict(effect(worse, DIRECTIONS, "fvd"))
    assert (
        none
        == "directions both against directions one: no verdict on the FVD yet, because no seed has all pairs of cells."
    )


def test_each_difference_is_listed_once_and_none_across_tasks():
    groups = grouped(crossed([0.9] * 3, [1.0] * 3, [1.8] * 3, [2.0] * 3), [DIRECTIONS], "held_out")
    assert [gap.first for gap in groups["declared contrasts"]] == ["directions both", "s4d, both", "mamba, both"]
    assert [gap.second for gap in groups["against identity"]] == ["identity"] * 4
    assert [(gap.first, gap.second) for gap in groups["other pairs of cells"]] == [
        ("s4d, both", "mamba, both"), ("s4d, one", "mamba, one"),
    ]  # fmt: skip
    lengths = cells([result({"mixer": m, "frames": n}, 0, 1.0) for m in ("a", "b") for n in ("16", "64")])
    assert len(pairs(lengths, "held_out")) == 4
    assert {(gap.first, gap.second) for gap in pairs(lengths, "held_out", apart=["frames"])} == {
        ("a, frames 16", "b, frames 16"), ("a, frames 64", "b, frames 64"),
    }  # fmt: skip


def test_the_control_has_the_same_task():
    compared = cells([result({"mixer": m, "frames": n}, 0, 1.0) for m in ("identity", "a") for n in ("16", "64")])
    assert [cell.name for cell in compared] == [
        "a, frames 16",
        "a, frames 64",
        "identity, frames 16",
        "identity, frames 64",
    ]
    assert control_of(compared[1], compared).name == "identity, frames 64"
    assert control_of(compared[3], compared) is None


def test_percentages_have_as_many_digits_as_their_interval():
    assert percent_text(Estimate(-0.0312, 0.011)) == "-3.1 % (-4.2 to -2.0)"
    assert percent_text(Estimate(0.0312, 0.0003)) == "+3.12 % (+3.09 to +3.15)"
    assert percent_text(Estimate(0.0)) == "+0.0 %"


def test_failures_are_rows_and_the_terminal_shows_every_cell():
    compared = crossed([0.9] * 3, [1.0] * 3, [1.8] * 3, [2.0] * 2)
    table = cells_table(compared, {"mamba, one, seed 2": "out of memory"})
    assert table.rows[-1] == ("mamba, one, seed 2", "failed", "out of memory")
    assert [row[1] for row in table.rows[:-1]] == ["3", "3", "3", "2", "3"]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(rich_table(table))
    text = console.export_text()
    for words in (*(cell.name for cell in compared), "out of memory", "held-out loss against identity", "-77.5 %"):
        assert words in text
