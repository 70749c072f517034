"""Distances of features: closed forms, splits and merges, bias, intervals that hold."""

import numpy as np
import pytest

from diffusion.evaluation import EvaluationError
from diffusion.evaluation.frechet import RawFeatures, Statistics, distance, frechet, summary
from diffusion.evaluation.kernel import Kernel
from diffusion.evaluation.uncertainty import Estimate, floor, resampled

WIDTH = 24
SPREAD = np.sqrt(np.exp(-np.arange(WIDTH) / 4))
SHIFT = np.where(np.arange(WIDTH) < 4, 0.4, 0.0)
SCALE = 1.3
TRUTH = float(SHIFT @ SHIFT + ((SCALE - 1) * SPREAD) @ ((SCALE - 1) * SPREAD))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def drawn(rng, count, *, moved=False):
    features = rng.normal(size=(count, WIDTH)) * SPREAD
    return features * SCALE + SHIFT if moved else features


def alone(count):
    """Groups of one clip each."""
    return np.arange(count)


def between(real, fake):
    return lambda i, j: frechet(real[i], fake[j]).value


def test_gaussians_of_known_distance(rng):
    found = frechet(drawn(rng, 40_000), drawn(rng, 40_000, moved=True))
    assert found.value == pytest.approx(TRUTH, rel=0.05)
    assert found.mean_term == pytest.approx(SHIFT @ SHIFT, rel=0.05)
    assert found.mean_term + found.covariance_term == found.value


@pytest.mark.parametrize("count", [2, 10, 400])
def test_a_set_has_distance_zero_from_itself(rng, count):
    features = rng.normal(size=(count, 60)) * np.logspace(0, -6, 60)
    for kind in (RawFeatures(features), Statistics.of(features)):
        assert abs(distance(kind, kind).value) <= 1e-6 * kind.trace


def test_both_forms_of_features_give_equal_distances(rng):
    real, fake = drawn(rng, 10), drawn(rng, 200, moved=True)
    assert isinstance(summary(real), RawFeatures)
    assert isinstance(summary(fake), Statistics)
    pairs = [(a, b) for a in (RawFeatures(real), Statistics.of(real)) for b in (RawFeatures(fake), Statistics.of(fake))]
    values = [distance(a, b).value for a, b in pairs]
    np.testing.assert_allclose(values, values[0], rtol=1e-7)


def test_against_the_square_root_of_a_matrix(rng):
    real, fake = drawn(rng, 300), drawn(rng, 200, moved=True)
    one, two = np.cov(real.T), np.cov(fake.T)
    root = np.sqrt(np.linalg.eigvals(one @ two).real.clip(0)).sum()
    gap = real.mean(0) - fake.mean(0)
    assert frechet(real, fake).value == pytest.approx(gap @ gap + np.trace(one + two) - 2 * root, rel=1e-9)


def test_batches_merge_in_any_order(rng):
    features = drawn(rng, 101)
    parts = [Statistics.of(part) for part in np.array_split(features, 7)]
    for order in (parts, parts[::-1]):
        merged = order[0]
        for part in order[1:]:
            merged = merged.merged(part)
        whole = Statistics.of(features)
        assert merged.count == whole.count
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-10, atol=1e-10)


def test_one_clip_has_no_covariance(rng):
    with pytest.raises(EvaluationError, match="at least 2 clips"):
        frechet(drawn(rng, 1), drawn(rng, 5))
    with pytest.raises(EvaluationError, match="the numbers of features differ"):
        frechet(drawn(rng, 5), rng.normal(size=(5, 3)))


def test_the_bias_is_proportional_to_one_over_the_number_of_samples(rng):
    counts = np.array([100, 200, 400, 800])
    values = [np.mean([frechet(drawn(rng, n), drawn(rng, n)).value for _ in range(8)]) for n in counts]
    assert np.polyfit(np.log(counts), np.log(values), 1)[0] == pytest.approx(-1, abs=0.15)


def test_kernel_distance_is_within_its_stated_error(rng):
    many, moved = drawn(rng, 1500), drawn(rng, 1500, moved=True)
    truth, held = Kernel(many, moved).value, 0
    for _ in range(20):
        kernel = Kernel(drawn(rng, 150), drawn(rng, 150, moved=True))
        value = resampled(lambda i, j, k=kernel: k.subset(i, j + 150), alone(150), alone(150), rng).estimate
        assert value.value == pytest.approx(kernel.value)
        held += abs(value.value - truth) <= value.margin
    assert held >= 18


def test_kernel_distance_equals_its_equation(rng):
    real, fake = drawn(rng, 5), drawn(rng, 4, moved=True)
    k = lambda a, b: (a @ b / WIDTH + 1) ** 3
    within = lambda s: np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j])
    across = np.mean([k(a, b) for a in real for b in fake])
    assert Kernel(real, fake).value == pytest.approx(within(real) + within(fake) - 2 * across)


def test_the_permutation_test_detects_a_difference(rng):
    same = [Kernel(drawn(rng, 30), drawn(rng, 30)).p_value(rng, alone(60)) for _ in range(10)]
    assert sum(p < 0.2 for p in same) <= 6
    assert np.mean(same) > 0.25
    assert Kernel(drawn(rng, 60), drawn(rng, 60, moved=True)).p_value(rng, alone(120)) <= 0.05


def test_the_floor_contains_the_distances_of_real_clips(rng):
    pool = drawn(rng, 200)
    found = floor(between(pool, pool), 100, 100, alone(200), rng)
    held = [abs(frechet(drawn(rng, 100), drawn(rng, 100)).value - found.value) <= found.margin for _ in range(20)]
    assert sum(held) >= 12
    assert frechet(drawn(rng, 100), drawn(rng, 100, moved=True)).value > found.value + found.margin


def test_three_clips_have_no_interval(rng):
    real = drawn(rng, 3)
    found = resampled(between(real, real), alone(3), alone(3), rng)
    assert found.estimate.margin is None
    assert found.halves == ()


@pytest.mark.parametrize(
    ("value", "margin", "text"),
    [
        (1234.5, 423.0, "1234 ± 423"), (387.2, 74.1, "387 ± 74"), (0.0104, 0.0132, "0.010 ± 0.013"),
        (-1.18, 1.83, "-1.2 ± 1.8"),
        (0.0, 0.00031, "0.00000 ± 0.00031"), (1e-9, 2e-10, "1e-09 ± 2e-10"), (12.0, None, "12"), (3.0, 0.0, "3 ± 0"),
        (1e6, 9.96, "1000000 ± 10"), (2.0, float("nan"), "2 ± nan"),
    ],
)  # fmt: skip
def test_an_estimate_is_printed_to_the_digits_of_its_margin(value, margin, text):
    assert str(Estimate(value, margin)) == text
