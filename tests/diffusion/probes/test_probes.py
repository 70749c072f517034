"""Probes: the best answers are the best, trials are repeatable, and impossible errors are reported."""

import dataclasses
import itertools
import math
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from diffusion.probes import ProbeError
from diffusion.probes.experiment import Experiment
from diffusion.probes.score import over_seeds, scores
from diffusion.probes.tasks import get, names, summary
from diffusion.probes.trial import ProbeTrial, run
from temporal_zoo import registry
from temporal_zoo.cli.main import zoo

TASKS = [
    pytest.param(name, level, noise, id=f"{name}-{level:g}-{noise:g}")
    for name in names()
    for level, noise in itertools.product(get(name).knob.values, get(name).noises.values)
    if level == get(name).knob.default or noise == get(name).noises.default
]
DEFAULTS = [pytest.param(name, get(name).knob.default, get(name).noises.default, id=name) for name in names()]


def drawn(name, level, noise, count=512):
    task = get(name)(level, noise)
    return task, task.draw(0, "test", 0, count, task.frames)


def total(task, sequences, answers):
    """Mean error where answers are due, and its standard error over sequences."""
    each = sequences.errors(answers, task.variance).sum(1) / sequences.due.sum(1).double().mean()
    return each.mean().item(), (each.std() / math.sqrt(len(each))).item()


def posterior(rho, noise, shown):
    """Covariance of the walk given all that is shown, by inverting matrices; `shown` as 0 and 1."""
    t = torch.arange(len(shown))
    prior = rho ** (t[:, None] - t).abs().double()
    seen = torch.diag(torch.tensor(shown, dtype=torch.float64) / noise**2)
    return torch.linalg.inv(torch.linalg.inv(prior) + seen)


def test_kalman_bounds_are_those_of_the_matrices_and_of_the_literature():
    past, whole = get("kalman")(0.9, 1.0).bounds(32)
    assert whole == pytest.approx(posterior(0.9, 1.0, [1] * 32).diag().mean().item(), rel=1e-9)
    filtered = [posterior(0.9, 1.0, [1] * (t + 1) + [0] * (31 - t))[t, t].item() for t in range(32)]
    assert past == pytest.approx(sum(filtered) / 32, rel=1e-9)
    assert (round(past, 4), round(whole, 4)) == (0.3132, 0.2268)


def test_infill_bounds_are_those_of_the_matrices():
    past, whole = get("infill")(16, 0.3).bounds(32)
    gap, ends = slice(8, 24), [1] * 8
    assert whole == pytest.approx(posterior(0.97, 0.3, [*ends, *[0] * 16, *ends]).diag()[gap].mean().item(), rel=1e-9)
    assert past == pytest.approx(posterior(0.97, 0.3, [*ends, *[0] * 24]).diag()[gap].mean().item(), rel=1e-9)


def test_the_answers_of_permanence_equal_a_sum_over_all_paths():
    from diffusion.probes.tasks.permanence import _CELLS, _TURN, _moves

    task, frames = get("permanence")(8, 0.6), 4
    sequences = task.draw(0, "test", 0, 64, frames)
    hidden = (torch.arange(_CELLS) >= 4) & (torch.arange(_CELLS) < 12)
    posterior_cells = torch.zeros(64, frames, _CELLS, dtype=torch.float64)
    seen = sequences.inputs.double()
    for start, turns in itertools.product(range(2 * _CELLS), itertools.product((0, 1), repeat=frames - 1)):
        path, chance = [start], 1.0
        for turn in turns:
            path.append(int(_moves()[turn][path[-1]]))
            chance *= _TURN if turn else 1 - _TURN
        cells = [state % _CELLS for state in path]
        picture = torch.nn.functional.one_hot(torch.tensor(cells), _CELLS).double() * ~hidden
        likelihood = (-(seen - picture).square().sum((1, 2)) / (2 * 0.6**2)).exp() * chance
        for t, cell in enumerate(cells):
            posterior_cells[:, t, cell] += likelihood * hidden[cell]
    posterior_cells = posterior_cells / posterior_cells.sum(2, keepdim=True)
    due = sequences.due
    assert due.any()
    torch.testing.assert_close(task.answers(sequences).whole[due], posterior_cells[due])
    torch.testing.assert_close(task.answers(sequences).past[:, -1][due[:, -1]], posterior_cells[:, -1][due[:, -1]])


@pytest.mark.parametrize(("name", "level", "noise"), TASKS)
def test_the_best_answers_reach_their_bounds_and_are_better_than_chance(name, level, noise):
    task, sequences = drawn(name, level, noise)
    best = task.answers(sequences)
    past, whole = total(task, sequences, best.past), total(task, sequences, best.whole)
    assert whole[0] <= past[0] + 1e-12
    assert past[0] < 0.8
    for (error, spread), bound in zip((past, whole), task.bounds(task.frames) or (), strict=False):
        assert abs(error - bound) < 4.5 * spread


@pytest.mark.parametrize(("name", "level", "noise"), TASKS)
def test_no_correction_improves_the_best_answers(name, level, noise):
    """The residual of a conditional mean is uncorrelated with every function of the inputs."""
    task, sequences = drawn(name, level, noise, count=1024)
    due = sequences.due[..., None]
    best = task.answers(sequences)
    inputs = sequences.inputs.double()
    seen = inputs.mean(2, keepdim=True)
    for answers, clues in ((best.past, (best.past, seen, seen.cumsum(1))), (best.whole, (best.whole, seen.flip(1)))):
        residual = (sequences.targets - answers) * due
        for clue in clues:
            each = (residual * clue).sum((1, 2))
            assert abs(each.mean()) < 4.5 * each.std() / math.sqrt(len(each)) + 1e-9


# In copy and revisit, all observations come before the answers.
@pytest.mark.parametrize("name", ["infill", "kalman", "ladder", "permanence"])
def test_the_best_of_the_past_depends_on_no_future_frame_and_the_best_of_all_does(name):
    task, sequences = drawn(name, get(name).knob.default, get(name).noises.default, count=4)
    now = task.frames // 2 + 4
    inputs = sequences.inputs.clone()
    # Only the observation changes; flags stay.
    inputs[:, now:, 0] += 1.0
    before, after = task.answers(sequences), task.answers(dataclasses.replace(sequences, inputs=inputs))
    torch.testing.assert_close(after.past[:, :now], before.past[:, :now])
    assert not torch.equal(after.whole[:, :now], before.whole[:, :now])


@pytest.mark.parametrize(("name", "level", "noise"), DEFAULTS)
def test_a_sequence_is_a_function_of_its_number(name, level, noise):
    task, sequences = drawn(name, level, noise, count=5)
    parts = [task.draw(0, "test", first, count, task.frames) for first, count in ((0, 2), (2, 3))]
    assert torch.equal(torch.cat([part.inputs for part in parts]), sequences.inputs)
    assert torch.equal(torch.cat([part.targets for part in parts]), sequences.targets)
    for other in (task.draw(1, "test", 0, 5, task.frames), task.draw(0, "train", 0, 5, task.frames)):
        assert not torch.equal(other.inputs, sequences.inputs)


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
    from diffusion.probes.network import Answerer
    from temporal_zoo import MixerSpec

    one, other = (list(run(trial))[-1].result["tests"][0]["errors"] for trial in (tiny("identity"), tiny("flash")))
    assert one["past"] == other["past"]
    assert one["mixer"] != other["mixer"]
    networks = [Answerer(MixerSpec.parse(name), 1, 1, width=8, depth=1, seed=0) for name in ("identity", "s4d")]
    assert torch.equal(networks[0].head.weight, networks[1].head.weight)


def zoo_probe(*words):
    return CliRunner().invoke(zoo, ["probe", *words])


@pytest.mark.parametrize("name", names())
def test_every_probe_runs_from_the_command_line(name, tmp_path):
    pytest.importorskip("matplotlib")
    words = (name, "--mixers", "identity", "--seeds", "2", "--steps", "2", "--sequences", "4", "--out", str(tmp_path))
    result = zoo_probe(*words)
    assert result.exit_code == 0, result.output
    assert "control" in result.output
    page = (tmp_path / "page.html").read_text()
    assert "best of the past" in page
    assert "data:image/png;base64," in page
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    again = zoo_probe(*words)
    assert "2 of 2 trainings are on record" in again.output


def test_several_difficulties_and_noises_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    result = zoo_probe("kalman", "--mixers", "identity", "--seeds", "1", "--steps", "1", "--sequences", "2",
                       "--difficulty", "all", "--noise", "0.5,2", "--out", str(tmp_path))  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.output.count("correlation 0.97") == 2


def test_the_list_names_every_probe_with_its_summary():
    result = zoo_probe("--list")
    assert result.exit_code == 0
    for name in names():
        assert name in result.output
        assert summary(name)
        assert get(name).question.endswith("?")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "NAME is missing"),
        (("kalmann",), "did you mean"),
        (("kalman", "--noise", "3"), "choose from 0.5, 1, 2"),
        (("kalman", "--difficulty", "hard"), "correlation cannot be 'hard'"),
        (("kalman", "--mixers", "mumba"), "no mixer is named 'mumba'"),
        (("kalman", "--mixers", ""), "names no mixer"),
        (("kalman", "--seeds", "0"), "--seeds"),
    ],
)
def test_bad_input_gets_one_message(words, message):
    result = zoo_probe(*words)
    assert result.exit_code == 2
    assert message in result.output


def test_a_knob_refuses_other_values_in_python():
    with pytest.raises(ProbeError, match="noise cannot be 7"):
        get("kalman")(0.9, 7.0)


def test_help_imports_no_torch():
    code = "import sys; from diffusion.cli.probe import probe; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_all_selects_every_mixer(monkeypatch):
    from diffusion.cli.probe import _specs

    assert _specs("all") == registry.names()
    assert _specs("mamba,mamba:state=16,bimamba:state=8") == ["mamba", "bimamba:state=8"]
