"""Jobs in processes of this machine: failures, kills and interrupts."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest

from diffusion.ablations.launch import local
from diffusion.ablations.run_job import run_job
from diffusion.training import checkpoint


@pytest.fixture
def workers(monkeypatch):
    """Name of a job -> its process."""
    processes = {}

    class Worker(local._Worker):
        def __init__(self, job, index):
            super().__init__(job, index)
            processes[job.name] = self.process

    monkeypatch.setattr(local, "_Worker", Worker)
    return processes


def assert_same(one, other):
    """Equal results except for seconds."""
    ours, theirs = one.results(), other.results()
    assert len(ours) == len(theirs) == len(one.trials)
    for a, b in zip(ours, theirs, strict=True):
        assert replace(a, costs=a.costs | {"step_s": 0.0}) == replace(b, costs=b.costs | {"step_s": 0.0})


def test_a_killed_process_and_a_diverging_network_fail_only_their_own_trials(grid, workers):
    undisturbed = grid("undisturbed")
    assert [run_job(job) for job in undisturbed.jobs()] == [None] * 3
    disturbed = grid()
    killed, diverging, healthy = disturbed.jobs()
    recipe = diverging.trials[0].recipe.override(["train.optimizer.lr=1e30"])
    diverging = replace(diverging, trials=(replace(diverging.trials[0], recipe=recipe),))

    def report(job, step, stage):
        if job is killed and step == 2:
            workers[job.name].kill()

    ends = {job.name: reason for job, reason in local.launch([killed, diverging, healthy], 2, report)}
    assert "SIGKILL" in ends[killed.name]
    assert "training failed at step" in ends[diverging.name]
    assert ends[healthy.name] is None
    assert disturbed.failures() == {killed.name: ends[killed.name]}
    # The next attempt resumes the killed job from its checkpoint.
    assert checkpoint.load(killed.run / "checkpoint.pt")["step"] in (2, 3)
    assert [run_job(job) for job in disturbed.jobs()] == [None] * 2
    assert disturbed.failures() == {}
    assert_same(disturbed, undisturbed)


def test_an_interrupt_leaves_checkpoints_and_no_process_and_no_failure(grid, workers, base):
    long = grid()
    jobs = []
    for job in long.jobs()[:2]:
        recipe = base.override(["train.steps=100000", "train.save_every=100000", f"train.seed={len(jobs)}"])
        jobs.append(replace(job, trials=(replace(job.trials[0], recipe=recipe),)))
    reached, sessions = {}, set()

    def report(job, step, stage):
        reached[job.name] = step
        sessions.add(os.getsid(workers[job.name].pid))
        if len(reached) == 2 and min(reached.values()) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(local.launch(jobs, 2, report))
    assert os.getsid(0) not in sessions  # so that Ctrl-C in a terminal does not reach the workers
    for job in jobs:
        assert workers[job.name].exitcode == 0
        assert checkpoint.load(job.run / "checkpoint.pt")["step"] >= reached[job.name]
        assert not (job.run / "failure.json").exists()


def test_an_interrupt_at_the_start_of_a_process_ends_it_without_a_traceback(grid, workers, monkeypatch, capfd):
    class Interrupted(local._Worker):
        def start(self):
            super().start()
            os.kill(self.process.pid, signal.SIGINT)

    monkeypatch.setattr(local, "_Worker", Interrupted)
    ((job, reason),) = local.launch(grid().jobs()[:1], 1, lambda *_: None)
    assert reason == "its process ended with exit code 130"
    assert capfd.readouterr().err == ""
    assert (job.run / "stderr.txt").read_text() == ""


def test_an_interrupt_during_the_start_of_a_process_leaves_no_process(grid, workers, monkeypatch):
    start = local._PROCESSES.Process.start
    second = []

    def interrupted(process):
        if second:
            raise KeyboardInterrupt
        second.append(process)
        start(process)

    monkeypatch.setattr(local._PROCESSES.Process, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(local.launch(grid().jobs(), 2, lambda *_: None))
    assert not any(process.is_alive() for process in workers.values() if process.pid is not None)


def test_a_new_process_imports_no_torch_before_it_can_receive_signals():
    code = "import sys, diffusion.ablations.launch.local; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


CRASH = """
import os
def crash(job, errors, sender):
    errors.write_text("first\\nthe last line\\n")
    os._exit(3)
"""


def test_the_last_line_of_a_crash_is_its_reason(grid, monkeypatch, tmp_path):
    # The new process imports the function by its name, which modules of tests do not have everywhere.
    (tmp_path / "module_of_a_crash.py").write_text(CRASH)
    monkeypatch.syspath_prepend(tmp_path)
    job = grid().jobs()[0]
    monkeypatch.setattr(local, "_work", import_module("module_of_a_crash").crash)
    ((_, reason),) = local.launch([job], 1, lambda *_: None)
    assert reason == "its process ended with exit code 3: the last line"
    assert grid().failures() == {job.name: reason}
