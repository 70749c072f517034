"""Launchers for clusters, with stand-ins for their packages."""

import sys
import types

import pytest

from diffusion.ablations import AblationError, launch
from diffusion.ablations.run_job import run_job
from temporal_zoo.cli.main import explain


def test_an_unknown_launcher_is_refused():
    with pytest.raises(AblationError, match="unknown launcher 'slurm'; choose from local, ray, submitit"):
        launch.get("slurm")


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_a_launcher_without_its_package_says_how_to_install_it(name, monkeypatch, grid):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        list(launch.get(name)(grid().jobs(), 1, None))
    assert explain(caught.value).startswith(f"this needs the package {name} (")
    assert explain(caught.value).endswith('pip install "temporal-zoo[launch]"')


def test_submitit_gets_all_jobs_and_its_own_failures_are_outcomes(monkeypatch, grid):
    asked = {}

    class Executor:
        def __init__(self, folder):
            asked["folder"] = folder

        def update_parameters(self, **parameters):
            asked.update(parameters)

        def map_array(self, function, jobs):
            def result(job):
                if job is jobs[1]:
                    raise RuntimeError("node lost\nand more")
                return function(job)

            return [types.SimpleNamespace(result=lambda job=job: result(job)) for job in jobs]

    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=Executor))
    trials = grid()
    ends = list(launch.get("submitit")(trials.jobs(), 5, None))
    assert [reason for _, reason in ends] == [None, "RuntimeError: node lost", None]
    assert asked["slurm_array_parallelism"] == 5
    assert asked["gpus_per_node"] == 0
    assert len(trials.results()) == 2


def test_ray_runs_as_many_jobs_as_there_are_workers(monkeypatch, grid):
    running, counts = {}, []

    class Task:
        def __init__(self, function):
            self.function = function

        def remote(self, job):
            running[job.name] = job
            counts.append(len(running))
            return job.name

    def get(name):
        return run_job(running.pop(name))

    stand_in = types.SimpleNamespace(
        init=lambda **_: None, remote=lambda **_: Task, wait=lambda tasks: (tasks[:1], tasks[1:]), get=get
    )
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    trials = grid()
    assert [reason for _, reason in launch.get("ray")(trials.jobs(), 2, None)] == [None] * 3
    assert max(counts) == 2
    assert trials.jobs() == []
