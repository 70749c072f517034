"""Runs jobs on a SLURM cluster through submitit; $SBATCH_PARTITION and $SBATCH_TIMELIMIT set partition and time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusion.ablations.job import Job
from diffusion.ablations.launch import ReportJob
from diffusion.ablations.run_job import run_job


def launch(jobs: list[Job], workers: int, report: ReportJob) -> Iterator[tuple[Job, str | None]]:
    """Submits all jobs as one array; yields them in order."""
    import submitit

    executor = submitit.AutoExecutor(folder=Path(jobs[0].folder) / "submitit")
    executor.update_parameters(
        name="zoo-ablate",
        cpus_per_task=1,
        gpus_per_node=int(jobs[0].device != "cpu"),
        slurm_array_parallelism=workers,
    )
    tasks = executor.map_array(_RunJob(), jobs)
    for job, task in zip(jobs, tasks, strict=True):
        try:
            yield job, task.result()
        except Exception as error:  # of a node or of the scheduler; `run_job` does not see it
            yield job, f"{type(error).__name__}: {error}".partition("\n")[0]


class _RunJob:
    """Runs a job; when SLURM stops it, submitit queues it again, and it resumes from the run's newest checkpoint."""

    def __call__(self, job: Job) -> str | None:
        return run_job(job)

    def checkpoint(self, job: Job) -> Any:
        """Called by submitit at the time limit."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)
