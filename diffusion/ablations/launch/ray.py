"""Runs jobs on a Ray cluster: the one of $RAY_ADDRESS, or a new one on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffusion.ablations.job import Job
from diffusion.ablations.launch import ReportJob
from diffusion.ablations.run_job import run_job


def launch(jobs: list[Job], workers: int, report: ReportJob) -> Iterator[tuple[Job, str | None]]:
    """Keeps at most `workers` jobs running; yields each at its end."""
    import ray

    ray.init(ignore_reinit_error=True)
    task = ray.remote(num_cpus=1, num_gpus=int(jobs[0].device != "cpu"), max_retries=0)(run_job)
    waiting = list(reversed(jobs))
    running: dict[Any, Job] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            job = waiting.pop()
            running[task.remote(job)] = job
        (ended, *_), _ = ray.wait(list(running))
        job = running.pop(ended)
        try:
            yield job, ray.get(ended)
        except Exception as error:  # of a node or of Ray; `run_job` does not see it
            yield job, f"{type(error).__name__}: {error}".partition("\n")[0]
