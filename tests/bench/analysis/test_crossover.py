"""Crossings of measured curves, and the sentences about them."""

import math

import pytest

from bench.analysis.crossover import crossings, ratios, sentences
from bench.analysis.curves import STORED, TIME, panels
from bench.sweep.outcome import Outcome


@pytest.fixture
def say(results_of):
    """A function that returns the sentences about mixers and their outcomes."""

    def say(outcomes):
        (panel,) = panels(results_of(outcomes))
        return sentences(panel)

    return say


def test_curves_cross_where_the_laws_are_equal(results_of, linear_and_quadratic):
    (panel,) = panels(results_of(linear_and_quadratic))
    bimamba, flash = panel.curves
    times = ratios(bimamba, flash, TIME)
    (crossing,) = crossings(times)
    assert crossing.at == pytest.approx(128)
    assert crossing.falls
    assert times[1024].value == pytest.approx(1 / 8)
    # Both times have a spread of 2 %; squares of relative errors add up.
    assert crossing.low == pytest.approx(128 / math.exp(math.hypot(math.log(0.98), math.log(1.02))))
    assert crossing.high == pytest.approx(128 * math.exp(math.hypot(math.log(0.98), math.log(1.02))))
    assert crossings(ratios(bimamba, flash, STORED)) == []


def test_crossings_as_sentences(say, timed, linear_and_quadratic):
    assert say(linear_and_quadratic) == [
        "bimamba is faster than flash above L = 128 (124 to 132, by their intervals); "
        "at 1024 frames 0.125 times its time.",
        "bimamba stores less than flash: at every length, L = 16 to 1024; at 1024 frames 0.500 times its bytes.",
    ]
    slow = {"bimamba": lambda n: timed(9.0 * n), "flash": lambda n: timed(3.0 * n)}
    assert say(slow) == [
        "bimamba is faster than flash: never in range, L = 16 to 1024; at 1024 frames 3.00 times its time.",
        "bimamba and flash store the same from L = 16 to 1024.",
    ]
    alike = {"bimamba": lambda n: timed(3.05 * n if n > 100 else 2.95 * n), "flash": lambda n: timed(3.0 * n)}
    assert say(alike)[0] == (
        "bimamba and flash take the same time within their intervals, L = 16 to 1024; "
        "at 1024 frames 1.02 times its time."
    )
    reverse = {"bimamba": lambda n: timed(n * n / 32), "flash": lambda n: timed(4.0 * n)}
    assert "faster than flash below L = 128" in say(reverse)[0]


def test_there_is_no_sentence_without_the_reference_or_a_second_length(say, timed):
    assert say({"bimamba": lambda n: timed(1), "attn": lambda n: timed(1)}) == []
    failed = Outcome("out_of_memory", "too much")
    assert say({"bimamba": lambda n: timed(1), "flash": lambda n: timed(1) if n == 16 else failed}) == []
