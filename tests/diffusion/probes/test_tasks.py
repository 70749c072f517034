"""The tasks: their best answers are the best, and sequences are repeatable."""

import dataclasses
import itertools
import math

import pytest
import torch

from diffusion.probes import ProbeError
from diffusion.probes.tasks import get, names

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


def test_a_knob_refuses_other_values_in_python():
    with pytest.raises(ProbeError, match="noise cannot be 7"):
        get("kalman")(0.9, 7.0)
