"""Jobs of a SLURM cluster, through submitit; partition and time limit are those of $SBATCH_PARTITION and the like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusion.ablations.job import Job
from diffusion.ablations.launch import Watch
from diffusion.ablations.trial import attempt


def launch(jobs: list[Job], workers: int, watch: Watch) -> Iterator[tuple[Job, str | None]]:
    """Submits all jobs as one array; yields them in order."""
    import submitit

    executor = submitit.AutoExecutor(folder=Path(jobs[0].folder) / "submitit")
    executor.update_parameters(
        name="zoo-ablate",
        cpus_per_task=1,
        gpus_per_node=int(jobs[0].device != "cpu"),
        slurm_array_parallelism=workers,
    )
    tasks = executor.map_array(_Attempt(), jobs)
    for job, task in zip(jobs, tasks, strict=True):
        try:
            yield job, task.result()
        except Exception as error:  # of a node or of the scheduler, which `attempt` could not see
            yield job, f"{type(error).__name__}: {error}".partition("\n")[0]


class _Attempt:
    """Does a job; one that SLURM stops is queued again, and goes on from the run's last checkpoint."""

    def __call__(self, job: Job) -> str | None:
        return attempt(job)

    def checkpoint(self, job: Job) -> Any:
        """What submitit asks for when time is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)
