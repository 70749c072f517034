"""Experiments: they resume, and reuse only results of the same environment."""

import torch

from diffusion.probes.experiment import Experiment
from diffusion.probes.network import Answerer
from diffusion.probes.trial import ProbeTrial, run
from temporal_zoo import MixerSpec


def tiny(mixer, seed=0):
    return ProbeTrial("kalman", 0.9, 1.0, mixer, seed, 3, 8)


def without_time(result):
    return {key: value for key, value in result.items() if key != "processor_s"}


def test_a_stopped_experiment_resumes_and_ends_with_the_same_results(tmp_path):
    trials = [tiny("identity"), tiny("identity", 1), tiny("flash")]
    first = Experiment(trials, tmp_path / "stopped")
    for trial, progress in first.steps():
        if trial == trials[1] and progress.step == 2:
            break
    second = Experiment(trials, tmp_path / "stopped")
    assert second.pending == trials[1:]
    whole = Experiment(trials, tmp_path / "whole")
    for experiment in (second, whole):
        for _ in experiment.steps():
            pass
    for (trial, result), (same, expected) in zip(second.results(), whole.results(), strict=True):
        assert trial == same
        assert without_time(result) == without_time(expected)


def test_results_of_another_environment_are_not_reused(tmp_path, monkeypatch):
    experiment = Experiment([tiny("identity")], tmp_path)
    for _ in experiment.steps():
        pass
    assert not Experiment([tiny("identity")], tmp_path).pending
    monkeypatch.setattr("diffusion.probes.experiment.environment", lambda: {"id": "of other code"})
    assert Experiment([tiny("identity")], tmp_path).pending


def test_all_mixers_of_a_seed_have_the_same_sequences_and_initial_weights():
    one, other = (list(run(trial))[-1].result["tests"][0]["errors"] for trial in (tiny("identity"), tiny("flash")))
    assert one["past"] == other["past"]
    assert one["mixer"] != other["mixer"]
    networks = [Answerer(MixerSpec.parse(name), 1, 1, width=8, depth=1, seed=0) for name in ("identity", "s4d")]
    assert torch.equal(networks[0].head.weight, networks[1].head.weight)
