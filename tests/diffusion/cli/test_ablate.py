"""`zoo ablate`: what is listed and refused, cells that are paired and made equal, sweeps that go on after any end."""

import fcntl
import json
import os
import subprocess
import sys
import time
import types
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

import diffusion.training.step
from diffusion.ablations import AblationError, catalogue, launch
from diffusion.ablations.ablation import Ablation, Budget, Cell, Drawing, Recipe, Scale, crossed
from diffusion.ablations.budget import solve
from diffusion.ablations.catalogue.bidirectional import recurrences
from diffusion.ablations.counting import counted
from diffusion.ablations.grid import laid_out
from diffusion.ablations.job import Job
from diffusion.ablations.launch import local
from diffusion.ablations.trial import attempt
from diffusion.config import ModelConfig, OptimizerConfig, ProcessConfig, TrainConfig
from diffusion.data.config import DataConfig
from diffusion.training import checkpoint
from diffusion.training.trainer import Trainer
from temporal_zoo.cli.main import zoo

MIXERS = {name: f"train.model.mixer={name}" for name in ("mamba:state=4", "s4d:state=4")}


@pytest.fixture(autouse=True)
def _same_threads():
    """Jobs set the number of threads of their process, which is that of the tests here."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Four steps on 4 frames of 8x8."""
    train = TrainConfig(
        model=ModelConfig(
            mixer="identity", slots=("mid",), width=8, multipliers=(1, 2), blocks=1, groups=2, heads=1, time_width=2,
            stem=3, size=8,
        ),
        process=ProcessConfig(steps=8, prediction="v"),
        data=DataConfig(frames=4, size=8, videos=3, cache=str(tmp_path_factory.mktemp("mazes"))),
        optimizer=OptimizerConfig(lr=1e-3, clip=1.0, ema=0.9),
        steps=4, batch=2, save_every=1, sample_every=100, test_every=2, test_clips=3,
    )  # fmt: skip
    return Recipe(train=train, drawing=Drawing(count=2, steps=2))


@pytest.fixture
def grid(base, tmp_path):
    """`grid()`: two cells and a line of reference, a seed each."""

    def made(folder="out", seeds=1, **scale):
        cells = crossed({"mixer": MIXERS}) + crossed({"mixer": {"identity": ""}}, reference=True)
        ablation = Ablation("micro", "Does it run?", (), (), "toy", Scale(base=base, cells=cells, **scale))
        return laid_out(ablation, tmp_path / folder, seeds=seeds, changes=(), weights=None, device="cpu")

    return made


def invoke(*arguments):
    return CliRunner().invoke(zoo, ["ablate", *map(str, arguments)])


# What is listed and refused


def test_every_file_is_an_ablation_with_a_toy_and_a_paper_scale():
    assert {"bidirectional", "mixers-by-frames", "equal-memory", "mlp-glu", "state-and-expansion"} < set(
        catalogue.names()
    )
    for name in catalogue.names():
        assert catalogue.summary(name).endswith(")") or "?" in catalogue.summary(name)
        for scale in ("toy", "paper"):
            found = catalogue.get(name, scale)
            axes = {axis for cell in found.scale.cells for axis in cell.values}
            assert {contrast.axis for contrast in found.contrasts} | set(found.apart) <= axes
            values = [tuple(sorted(cell.values.items())) for cell in found.scale.cells]
            assert len(set(values)) == len(values)
            for cell in found.scale.cells:
                found.scale.base.override(cell.changes)


def test_every_recurrence_is_tried_both_ways():
    from temporal_zoo import build

    assert {"s4d", "mamba"} <= set(recurrences())
    for one, both in recurrences().values():
        assert build(one, 16).causal
        assert not build(both, 16).causal


def test_the_list_needs_no_torch():
    code = "import sys; from temporal_zoo.cli.main import zoo; "
    code += "zoo(['ablate', '--list', '--json'], standalone_mode=False); "
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == set(catalogue.names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which ablation?"),
        (["bidirectonal"], 'did you mean "bidirectional"?'),
        (["bidirectional", "--scale", "huge"], "it has toy, paper"),
        (["bidirectional", "--seeds", "0"], "0 is not in the range x>=1"),
        (["bidirectional", "--budget", "watts"], "can be made equal in steps, parameters, stored_bytes, seconds"),
        (["bidirectional", "--budget", "seconds"], "needs a target"),
        (["bidirectional", "--budget", "seconds=much"], "is not a number"),
        (["bidirectional", "--launcher", "slurm"], "there are local, ray, submitit"),
        (["bidirectional", "--set", "train.step=3"], 'did you mean "steps"?'),
        (["bidirectional", "--set", "train.data.test_share=0"], "holds none out"),
        (["bidirectional", "--set", "drawing.count=1"], "at least 2"),
        (["bidirectional", "--data", "no/such/folder"], "no/such/folder"),
        (["bidirectional", "--weights", "no/such/file"], "no such file"),
    ],
)
def test_bad_input_is_one_clear_message(arguments, message, tmp_path):
    done = invoke(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


# Cells are paired, and made equal


def test_cells_of_a_seed_see_the_same_clips_and_noise(grid, monkeypatch):
    seen = {}

    def loss(network, process, *drawn):
        seen.setdefault(key, []).append(drawn)
        return torch.ones(len(drawn[0]), requires_grad=True) * next(network.parameters()).sum()

    trials = grid(seeds=2).trials  # which counts with the true loss
    monkeypatch.setattr(diffusion.training.step, "loss", loss)
    for trial in trials:
        key = trial.cell["mixer"], trial.seed
        trainer = Trainer(trial.recipe.train, torch.device("cpu"))
        trainer.advance()
        trainer.advance()
        trainer.test_loss()
    (first, *others), (again, *_) = ([seen[mixer, seed] for mixer in (*MIXERS, "identity")] for seed in (0, 1))
    for other in others:
        assert len(other) == len(first) == 4
        for ours, theirs in zip(first, other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))
    # Another seed trains on others, and is tested on the same.
    assert not torch.equal(first[0][0], again[0][0])
    assert all(torch.equal(a, b) for a, b in zip(first[2][:3], again[2][:3], strict=True))


@pytest.mark.parametrize("kind", ["parameters", "stored_bytes"])
def test_width_is_solved_for(grid, base, kind, tmp_path):
    wide = base.override(["train.model.width=24"])
    cells = [wide.override([change]) for change in MIXERS.values()]
    solved = solve(cells, Budget(kind), device="cpu", folder=tmp_path)
    target = getattr(counted(cells[0].train, "cpu"), kind)
    assert solved[0].recipe == cells[0]
    assert solved[0].off == 0
    for found in solved:
        number = getattr(counted(found.recipe.train, "cpu"), kind)
        assert number / target - 1 == pytest.approx(found.off)
        assert found.matched == (abs(found.off) <= 0.1)
        # No other width comes nearer.
        for width in (found.recipe.train.model.width - 2, found.recipe.train.model.width + 2):
            train = found.recipe.train.replace(model=found.recipe.train.model.replace(width=width))
            assert abs(getattr(counted(train, "cpu"), kind) / target - 1) >= abs(found.off)


def test_a_budget_that_cannot_be_met_is_said(base, tmp_path):
    for target in (1, 1e12):
        (found,) = solve([base], Budget("parameters", target), device="cpu", folder=tmp_path)
        assert not found.matched
    trials = _out_of_reach(base, tmp_path)
    assert "no match" in trials.output


def _out_of_reach(base, tmp_path):
    return invoke("bidirectional", "--budget", "parameters=1000", "--dry-run", "--out", tmp_path, "--seeds", 1)


def test_equal_seconds_are_steps_at_the_speed_that_was_measured_once(base, tmp_path):
    budget = Budget("seconds", 10.0)
    (found,) = solve([base], budget, device="cpu", folder=tmp_path)
    (speed,) = json.loads((tmp_path / "speeds.json").read_text()).values()
    assert found.recipe.train.steps == max(1, round(10 / speed))
    key = next(iter(json.loads((tmp_path / "speeds.json").read_text())))
    (tmp_path / "speeds.json").write_text(json.dumps({key: 0.5}))
    (again,) = solve([base], budget, device="cpu", folder=tmp_path)
    assert again.recipe.train.steps == 20


def test_cells_that_differ_in_sampling_alone_share_a_training(base, tmp_path):
    cells = crossed({"sampler": {name: f"drawing.sampler={name}" for name in ("ddim", "ancestral")}})
    ablation = Ablation("micro", "?", (), (), "toy", Scale(base=base, cells=cells, held_out="v"))
    grid = laid_out(ablation, tmp_path, seeds=2, changes=(), weights=None, device="cpu")
    jobs = grid.jobs()
    assert [len(job.trials) for job in jobs] == [2, 2]
    assert all(attempt(Job.from_dict(json.loads(json.dumps(job.to_dict())))) is None for job in jobs)
    losses = [result.measures["held_out"] for result in grid.results()]
    assert losses[0] == losses[1] != losses[2] == losses[3]
    assert grid.jobs() == []


def test_the_error_of_v_is_the_loss_of_a_network_that_predicts_v(base):
    from diffusion.ablations.judging import held_out_v

    trainer = Trainer(base.train, torch.device("cpu"))
    # Before training its estimates are small, so that clamping changes none.
    with torch.no_grad():
        for parameter in trainer.average.module.parameters():
            parameter.mul_(0.1)
    assert held_out_v(trainer) == pytest.approx(trainer.test_loss(), rel=0.2)


# Sweeps


def test_a_sweep_in_processes_goes_on_after_failures_and_kills(grid, monkeypatch):
    undisturbed = grid("undisturbed")
    assert [attempt(job) for job in undisturbed.jobs()] == [None] * 3
    workers, told = {}, {}

    class Worker(local._Worker):
        def __init__(self, job, place):
            super().__init__(job, place)
            workers[job.name] = self.process

    def watch(job, step, doing):
        if job is jobs[0] and step == 2:
            workers[job.name].kill()

    # One process is killed, one network cannot be trained.
    monkeypatch.setattr(local, "_Worker", Worker)
    disturbed = grid()
    jobs = disturbed.jobs()[:2]
    diverging = jobs[1].trials[0].recipe.override(["train.optimizer.lr=1e30"])
    jobs[1] = replace(jobs[1], trials=(replace(jobs[1].trials[0], recipe=diverging),))
    for job, reason in local.launch(jobs, 2, watch):
        told[job.name] = reason
    assert "SIGKILL" in told[jobs[0].name]
    assert "training failed at step" in told[jobs[1].name]
    assert disturbed.failures() == {jobs[0].name: told[jobs[0].name]}
    # Done again, what failed is tried again, from its checkpoint.
    assert checkpoint.load(jobs[0].run / "checkpoint.pt")["step"] in (2, 3)
    assert [attempt(job) for job in disturbed.jobs()] == [None] * 3
    assert disturbed.failures() == {}
    assert_same(disturbed, undisturbed)


def assert_same(one, other):
    """Equal results, but for seconds."""
    ours, theirs = one.results(), other.results()
    assert len(ours) == len(theirs) == len(one.trials)
    for a, b in zip(ours, theirs, strict=True):
        assert replace(a, costs=a.costs | {"step_s": 0.0}) == replace(b, costs=b.costs | {"step_s": 0.0})


COMMAND = ["target-and-sampler", "--seeds", "1", "--set", "drawing.steps=2", "--set", "drawing.count=2"]


def test_a_command_that_was_killed_goes_on_and_ends_with_the_same_table(base, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "get", lambda name: in_process)
    settings = [f"train.{name}={value}" for name, value in _flat(base.override(["train.steps=12"]).train.to_dict())]
    command = [*COMMAND, *(part for setting in settings for part in ("--set", setting))]
    code = "from temporal_zoo.cli.main import zoo; zoo()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "ablate", *command, "--workers", "1", "--out", str(tmp_path / "killed")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not list((tmp_path / "killed").glob("*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    (folder,) = (tmp_path / "killed").glob("*/checkpoint.pt")
    _wait_until_free(folder.parent)
    assert checkpoint.load(folder)["step"] < 12
    tables = []
    for name in ("killed", "undisturbed"):
        done = invoke(*command, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        assert (tmp_path / name / "page.html").exists()
        tables.append([line for line in done.output.splitlines() if line.startswith("  ")])
    assert "target v against target epsilon" in done.output
    assert len(tables[0]) > 6
    assert [_without_seconds(line) for line in tables[0]] == [_without_seconds(line) for line in tables[1]]


def test_ctrl_c_is_told_and_the_same_command_continues(base, tmp_path, monkeypatch):
    def interrupted(jobs, workers, watch):
        yield from in_process(jobs[:1], workers, watch)
        raise KeyboardInterrupt

    settings = [f"train.{name}={value}" for name, value in _flat(base.train.to_dict())]
    command = [*COMMAND, *(part for setting in settings for part in ("--set", setting)), "--out", tmp_path]
    monkeypatch.setattr(launch, "get", lambda name: interrupted)
    done = invoke(*command)
    assert done.exit_code == 130
    assert "stopped after 2 of 6 trials; the same command continues" in done.output
    listed = json.loads(invoke(*command, "--dry-run", "--json").stdout)
    assert [row["state"] for row in listed] == ["done"] * 2 + ["pending"] * 4
    assert all(row["parameters"] > 0 and row["stored_bytes"] > 0 for row in listed)


def _wait_until_free(folder):
    """Until nobody trains in the run's folder: a worker ends with the command that started it."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)


def _flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", ",".join(map(str, value)) if isinstance(value, list) else value


def _without_seconds(line):
    return line.rstrip().rpartition("  ")[0] if "B" in line else line


def in_process(jobs, workers, watch):
    for job in jobs:
        yield job, attempt(job, lambda step, doing, job=job: watch(job, step, doing))


# Launchers


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_a_launcher_whose_package_is_absent_says_how_to_get_it(name, monkeypatch, base, grid):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        list(launch.get(name)(grid().jobs(), 1, None))
    from temporal_zoo.cli.main import explain

    assert explain(caught.value).startswith(f"this needs the package {name} (")
    assert explain(caught.value).endswith('pip install "temporal-zoo[launch]"')


def test_submitit_gets_all_jobs_and_its_own_failures_are_told(monkeypatch, grid):
    asked = {}

    class Executor:
        def __init__(self, folder):
            asked["folder"] = folder

        def update_parameters(self, **parameters):
            asked.update(parameters)

        def map_array(self, function, jobs):
            def result(job):
                if job is jobs[1]:
                    raise RuntimeError("node lost\nwith all hands")
                return function(job)

            return [types.SimpleNamespace(result=lambda job=job: result(job)) for job in jobs]

    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=Executor))
    made = grid()
    ended = list(launch.get("submitit")(made.jobs(), 5, None))
    assert [reason for _, reason in ended] == [None, "RuntimeError: node lost", None]
    assert asked["slurm_array_parallelism"] == 5
    assert asked["gpus_per_node"] == 0
    assert len(made.results()) == 2


def test_ray_keeps_as_many_jobs_under_way_as_there_are_workers(monkeypatch, grid):
    under_way, most = {}, []

    class Task:
        def __init__(self, function):
            self.function = function

        def remote(self, job):
            under_way[job.name] = job
            most.append(len(under_way))
            return job.name

    def get(name):
        return attempt(under_way.pop(name))

    stand_in = types.SimpleNamespace(
        init=lambda **_: None, remote=lambda **_: Task, wait=lambda running: (running[:1], running[1:]), get=get
    )
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    made = grid()
    assert [reason for _, reason in launch.get("ray")(made.jobs(), 2, None)] == [None] * 3
    assert max(most) == 2
    assert made.jobs() == []


def test_what_goes_wrong_in_a_job_is_an_outcome(grid, monkeypatch):
    job = grid().jobs()[0]
    monkeypatch.setattr(Trainer, "advance", lambda trainer: 1 / 0)
    assert attempt(job) == "ZeroDivisionError: division by zero"
    assert grid().failures() == {job.name: "ZeroDivisionError: division by zero"}
    monkeypatch.undo()
    assert attempt(job) is None
    assert grid().failures() == {}


def test_budgets_are_read():
    assert Budget.parse("seconds=120") == Budget("seconds", 120.0)
    assert Budget.parse("parameters") == Budget("parameters")
    with pytest.raises(AblationError, match="must be above zero"):
        Budget.parse("parameters=0")
    assert crossed({"a": {"x": "p=1 q=2"}, "b": {"y": ""}}) == (Cell({"a": "x", "b": "y"}, ("p=1", "q=2")),)
