"""Scores: the verdict on causal and bidirectional mixers, and intervals."""

import pytest

from diffusion.probes.experiment import Experiment
from diffusion.probes.score import over_seeds, scores
from diffusion.probes.tasks import get
from diffusion.probes.trial import ProbeTrial, run
from temporal_zoo import registry


@pytest.fixture(scope="module")
def reduced():
    """`zoo probe kalman` in a few seconds: one seed, few steps, few sequences."""
    trials = [ProbeTrial("kalman", 0.9, 1.0, mixer, 0, 120, 1024) for mixer in ("mamba", "bimamba")]
    results = [(trial, list(run(trial))[-1].result) for trial in trials]
    return {row.mixer: row for row in scores("kalman", results)}, results


def test_a_causal_mixer_stays_above_the_filter(reduced):
    row = reduced[0]["mamba"]
    assert row.causal
    assert not row.impossible
    assert row.above_past.value + row.above_past.margin > 0
    assert row.error.value < 0.40  # it does filter: the present alone leaves 0.5


def test_a_bidirectional_mixer_falls_below_the_filter_and_not_below_the_smoother(reduced):
    row = reduced[0]["bimamba"]
    assert not row.causal
    assert row.above_past.below_zero
    assert row.verdict == "uses the future"
    assert not row.above_whole.below_zero


@pytest.mark.slow
def test_the_kalman_probe_has_the_right_verdict_on_every_mixer(tmp_path):
    """`zoo probe kalman --mixers all --seeds 5`, an hour at most on one core."""
    task = get("kalman")
    trials = [
        ProbeTrial("kalman", 0.9, 1.0, mixer, seed, task.steps, 4096) for mixer in registry.names() for seed in range(5)
    ]
    experiment = Experiment(trials, tmp_path)
    for _ in experiment.steps():
        pass
    rows = scores("kalman", experiment.results())
    assert not [row for row in rows if row.impossible]
    assert [row.mixer for row in rows if row.control] == ["identity"]
    assert not [row for row in rows if not row.causal and not row.control and not row.above_past.below_zero]


def test_a_wrong_declaration_of_causality_is_reported(reduced):
    trial, result = reduced[1][1]
    (row,) = scores("kalman", [(trial, result | {"causal": True})])
    assert row.impossible
    assert row.verdict.startswith("IMPOSSIBLE")


def test_seeds_give_the_interval_and_a_single_seed_uses_its_sequences():
    assert over_seeds([(0.3, 0.01)]).margin == pytest.approx(0.0196)
    assert over_seeds([(0.1, 9.0), (0.3, 9.0)]).margin == pytest.approx(12.7062 * 0.1, rel=1e-3)
