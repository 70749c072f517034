"""The map of mixers relative to a reference: ratios, their degrees, and cells without a ratio."""

from bench.analysis.curves import panels
from bench.analysis.reference_map import reference_maps
from bench.sweep.outcome import Outcome


def maps(results):
    (panel,) = panels(results)
    return reference_maps(panel)


def cells(each):
    return {mixer: [(cell.text, cell.kind) for cell in row] for mixer, row in each.rows}


def test_ratios_have_a_sign_and_a_degree(results_of, timed, linear_and_quadratic):
    failed = Outcome("out_of_memory", "too much")
    attn = {"attn": lambda n: timed(n * n / 32 * 1.01, stored=3000 * n) if n < 1024 else failed}
    times, stored = maps(results_of(attn | linear_and_quadratic))
    assert times.title == "time of one forward and backward pass, relative to flash"
    assert times.lengths == (16, 64, 256, 1024)
    assert cells(times) == {
        "attn": [("≈ 1.01", "same")] * 3 + [("out of memory", "")],
        "bimamba": [("▲ 8.00", "more3"), ("▲ 2.00", "more2"), ("▼ 0.50", "less2"), ("▼ 0.12", "less3")],
    }
    assert cells(stored) == {
        "attn": [("▲ 1.50", "more2")] * 3 + [("out of memory", "")],
        "bimamba": [("▼ 0.50", "less2")] * 4,
    }


def test_without_flash_the_first_mixer_is_the_reference(results_of, timed):
    times, _ = maps(results_of({"attn": lambda n: timed(1.0), "s4d": lambda n: timed(1.2)}))
    assert times.reference == "attn"
    assert cells(times) == {"s4d": [("▲ 1.20", "more1")] * 4}


def test_one_mixer_has_no_map(results_of, timed):
    assert maps(results_of({"attn": lambda n: timed(1.0)})) == []
