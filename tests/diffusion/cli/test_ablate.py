"""`zoo ablate`: lists, wrong input, and commands that resume after any kind of stop."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner

from diffusion.ablations import catalogue, launch
from diffusion.ablations.run_job import run_job
from diffusion.training import checkpoint
from temporal_zoo.cli.main import zoo

ABLATION = ["target-and-sampler", "--seeds", "1", "--set", "drawing.steps=2", "--set", "drawing.count=2"]


@pytest.fixture(autouse=True)
def _same_threads():
    """Jobs set the number of threads of their process, which some tests share with them."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(small):
    """`command("steps=12")`: arguments of `zoo ablate` for the smallest training."""

    def make(*assignments):
        train = small("model.mixer=identity", "model.slots=mid", "data.frames=4", "save_every=1", *assignments)
        settings = [f"train.{name}={value}" for name, value in _flat(train.to_dict())]
        return [*ABLATION, *(part for setting in settings for part in ("--set", setting))]

    return make


def _flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", ",".join(map(str, value)) if isinstance(value, list) else value


def invoke(*arguments):
    return CliRunner().invoke(zoo, ["ablate", *map(str, arguments)])


def in_process(jobs, workers, report):
    for job in jobs:
        yield job, run_job(job, lambda step, stage, job=job: report(job, step, stage))


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
        ([], "NAME is missing; choose from bidirectional"),
        (["bidirectonal"], 'did you mean "bidirectional"?'),
        (["bidirectional", "--scale", "huge"], "choose from toy, paper"),
        (["bidirectional", "--seeds", "0"], "0 is not in the range x>=1"),
        (["bidirectional", "--budget", "watts"], "choose from steps, parameters, stored_bytes, seconds"),
        (["bidirectional", "--budget", "seconds"], "needs a target"),
        (["bidirectional", "--budget", "seconds=much"], "is not a number"),
        (["bidirectional", "--launcher", "slurm"], "choose from local, ray, submitit"),
        (["bidirectional", "--set", "train.step=3"], 'did you mean "steps"?'),
        (["bidirectional", "--set", "train.data.test_share=0"], "holds out no clips"),
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


def test_a_budget_out_of_reach_is_shown(tmp_path):
    done = invoke("bidirectional", "--budget", "parameters=1000", "--dry-run", "--out", tmp_path, "--seeds", 1)
    assert "no match" in done.output


def start(command, folder, reached):
    """The command in a process and a session of its own, as soon as `reached()` is true."""
    code = "from temporal_zoo.cli.main import zoo; zoo()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "ablate", *command, "--workers", "2", "--out", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not reached():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process


def wait_until_free(folder):
    """Until no process trains in the run's folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)


def test_a_killed_command_resumes_and_ends_with_the_same_table(command, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "get", lambda name: in_process)
    arguments = command("steps=12")
    process = start(arguments, tmp_path / "killed", lambda: list((tmp_path / "killed").glob("*/checkpoint.pt")))
    process.kill()
    process.communicate()
    unfinished = list((tmp_path / "killed").glob("*/checkpoint.pt"))
    for path in unfinished:
        wait_until_free(path.parent)  # the workers end with the command
    assert checkpoint.load(unfinished[0])["step"] < 12
    tables = []
    for name in ("killed", "undisturbed"):
        done = invoke(*arguments, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        assert (tmp_path / name / "page.html").exists()
        tables.append([line for line in done.output.splitlines() if line.startswith("  ")])
    assert "target v against target epsilon" in done.output
    assert len(tables[0]) > 6
    assert [_without_seconds(line) for line in tables[0]] == [_without_seconds(line) for line in tables[1]]


def _without_seconds(line):
    return line.rstrip().rpartition("  ")[0] if "B" in line else line


@pytest.mark.parametrize(
    ("number", "send"),
    [
        pytest.param(signal.SIGINT, os.killpg, id="Ctrl-C in a terminal"),
        pytest.param(signal.SIGTERM, os.kill, id="SIGTERM"),
    ],
)
def test_a_signal_stops_the_command_with_checkpoints_and_its_exit_code(number, send, command, tmp_path):
    arguments = command("steps=100000", "save_every=100000", "test_every=100000")
    trained = lambda: [log for log in tmp_path.glob("*/log.jsonl") if '"step"' in log.read_text()]
    process = start(arguments, tmp_path, lambda: len(trained()) == 2)
    send(process.pid, number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert "stopped after 0 of 6 trials; run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert all(checkpoint.load(path)["step"] > 0 for path in tmp_path.glob("*/checkpoint.pt"))
    assert len(list(tmp_path.glob("*/checkpoint.pt"))) == 2
    assert not list(tmp_path.glob("*/failure.json"))
    assert (tmp_path / "page.html").exists()


def test_an_interrupted_command_reports_what_is_done(command, tmp_path, monkeypatch):
    def interrupted(jobs, workers, report):
        yield from in_process(jobs[:1], workers, report)
        signal.raise_signal(signal.SIGINT)

    arguments = [*command(), "--out", tmp_path]
    monkeypatch.setattr(launch, "get", lambda name: interrupted)
    done = invoke(*arguments)
    assert done.exit_code == 130
    assert "stopped after 2 of 6 trials; run the same command again to resume" in done.output
    listed = json.loads(invoke(*arguments, "--dry-run", "--json").stdout)
    assert [row["state"] for row in listed] == ["done"] * 2 + ["pending"] * 4
    assert all(row["parameters"] > 0 and row["stored_bytes"] > 0 for row in listed)
