"""The distance at infinitely many clips: both bounds, the interval between them, and clips that share a video."""

import numpy as np
import pytest

from diffusion.evaluation.coverage import CASES, WIDTH, Pair, Population, coverage, page
from diffusion.evaluation.frechet import frechet
from diffusion.evaluation.infinite import LEAST_VIDEOS, at_infinity, lower_bound
from diffusion.evaluation.kernel import Kernel
from diffusion.evaluation.uncertainty import floor, nearest_cut, resampled, shuffled, split_in_two


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def limit(real, fake, real_groups, fake_groups, rng):
    found = resampled(lambda i, j: frechet(real[i], fake[j]).value, real_groups, fake_groups, rng)
    return at_infinity(real, fake, real_groups, fake_groups, found, rng)


def test_the_true_distance_of_a_population_is_that_of_many_samples(rng):
    population = Population(Pair("short", "turned"))
    real, fake = (population.draw(side, 8000, rng) for side in (0, 1))
    assert frechet(real, fake).value == pytest.approx(population.truth, rel=0.05)


@pytest.mark.parametrize("videos", [LEAST_VIDEOS, 64])
def test_the_interval_contains_the_true_distance_with_fewer_clips_than_features(videos):
    found = coverage(Pair("i3d", "turned"), videos, repeats=6)
    assert found.held >= 0.9
    assert found.first_order_held <= 0.9  # of the extrapolation that the interval once was


def test_the_lower_bound_is_below_the_true_distance_and_approaches_it(rng):
    """Two covariances that differ in their axes alone, one width 20."""
    spread = np.logspace(0, -1, 20)
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    turned = turn * spread @ turn.T
    truth = 2 * np.square(spread).sum() - 2 * np.linalg.svd(spread[:, None] * turned, compute_uv=False).sum()
    found = []
    for count in (30, 5000):
        groups = np.arange(count)
        pairs = [(rng.normal(size=(count, 20)) * spread, rng.normal(size=(count, 20)) @ turned) for _ in range(8)]
        found.append(np.mean([lower_bound(*pair, groups, groups, rng) for pair in pairs]))
    assert found[0] < 0.8 * truth
    assert 0.9 * truth < found[1] < 1.01 * truth


def test_the_lower_bound_of_equal_distributions_is_around_zero(rng):
    features = rng.standard_t(5, size=(8, 2, 60, 20)) * np.logspace(0, -1, 20)
    bounds = [lower_bound(*pair, np.arange(60), np.arange(60), rng) for pair in features]
    value = frechet(*features[0]).value
    assert abs(np.mean(bounds)) < 0.2 * value


def test_equal_clips_have_distance_zero(rng):
    same = np.ones((LEAST_VIDEOS, 5))
    found = limit(same, same, np.arange(LEAST_VIDEOS), np.arange(LEAST_VIDEOS), rng)
    assert found.value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("groups", [np.arange(LEAST_VIDEOS - 1), np.arange(4 * LEAST_VIDEOS - 4) // 4])
def test_too_few_videos_are_not_extrapolated(groups, rng):
    many = rng.normal(size=(LEAST_VIDEOS, 5))
    few = rng.normal(size=(len(groups), 5))
    assert limit(many, few, np.arange(LEAST_VIDEOS), groups, rng) is None
    assert limit(few, many, groups, np.arange(LEAST_VIDEOS), rng) is None


def clustered(rng, videos, clips, width=12, shift=0.0):
    """Clips that are nine tenths their video."""
    features = np.sqrt(0.9) * rng.normal(size=(videos, width)).repeat(clips, 0)
    return features + np.sqrt(0.1) * rng.normal(size=(videos * clips, width)) + shift


def test_intervals_count_videos_and_not_clips(rng):
    videos, clips, truth = 40, 5, 12 * 0.5**2
    groups, alone = np.arange(videos).repeat(clips), np.arange(videos * clips)
    held = {"videos": 0, "clips": 0}
    for _ in range(20):
        real, fake = clustered(rng, videos, clips), clustered(rng, videos, clips, shift=0.5)
        for name, kind in (("videos", groups), ("clips", alone)):
            found = limit(real, fake, kind, kind, rng)
            held[name] += abs(found.value - truth) <= found.margin
    assert held["videos"] >= 18
    assert held["clips"] < 14


def test_halves_do_not_divide_a_video(rng):
    groups = np.array([3, 3, 3, 0, 1, 1, 2, 7, 7, 7, 7])
    for _ in range(5):
        first, second = split_in_two(groups, rng)
        assert sorted([*first, *second]) == list(range(len(groups)))
        assert not set(groups[first]) & set(groups[second])
        ordered = groups[shuffled(groups, rng)]
        cut = nearest_cut(ordered, 5)
        assert not set(ordered[:cut]) & set(ordered[cut:])
        assert 2 <= cut <= 8


def test_all_clips_of_a_video_have_one_label(rng):
    """Two sides of a few videos each, all of one distribution: labels of clips would call them different."""
    groups = np.arange(12).repeat(8)
    by_video, by_clip = [], []
    for _ in range(10):
        kernel = Kernel(clustered(rng, 6, 8), clustered(rng, 6, 8))
        by_video.append(kernel.p_value(rng, groups))
        by_clip.append(kernel.p_value(rng, np.arange(96)))
    assert np.mean(by_video) > 0.25
    assert np.mean(by_clip) < 0.02


@pytest.mark.parametrize("sizes", [(2, 2), (2, 1, 1), (1, 1, 1, 1), (1, 1, 4)])
def test_labels_leave_two_samples_on_each_side(sizes, rng):
    groups = np.arange(len(sizes)).repeat(sizes)
    features = rng.normal(size=(len(groups), 3))
    assert 0 < Kernel(features[:2], features[2:]).p_value(rng, groups) <= 1


def test_a_floor_needs_several_videos(rng):
    pool = clustered(rng, 4, 6)
    distance = lambda i, j: frechet(pool[i], pool[j]).value
    assert floor(distance, 12, 12, np.arange(4).repeat(6), rng) is not None
    assert floor(distance, 12, 12, np.arange(3).repeat(8), rng) is None


def test_the_page_has_a_row_for_each_result():
    found = [coverage(case, LEAST_VIDEOS, repeats=1) for case in CASES[:1]]
    text = page(found)
    assert f"| {CASES[0]} | {LEAST_VIDEOS} |" in text
    assert f"{WIDTH} features" in text
