"""Jobs of a Ray cluster: the one that $RAY_ADDRESS names, or one on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffusion.ablations.job import Job
from diffusion.ablations.launch import Watch
from diffusion.ablations.trial import attempt


def launch(jobs: list[Job], workers: int, watch: Watch) -> Iterator[tuple[Job, str | None]]:
    """Keeps `workers` jobs under way; yields each when it ends."""
    import ray

    ray.init(ignore_reinit_error=True)
    task = ray.remote(num_cpus=1, num_gpus=int(jobs[0].device != "cpu"), max_retries=0)(attempt)
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
        except Exception as error:  # of a node or of Ray, which `attempt` could not see
            yield job, f"{type(error).__name__}: {error}".partition("\n")[0]
