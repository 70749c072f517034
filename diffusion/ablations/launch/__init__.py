"""Launchers: where jobs run.  Each file here is one; `zoo ablate --launcher NAME` selects it.

A module has one function,

    launch(jobs: list[Job], workers: int, report: ReportJob) -> Iterator[tuple[Job, str | None]]

which runs at most `workers` jobs at a time and yields each job at its end, with the reason of a failure or None.  The
workers write results into the folder of the jobs, so all of them must reach it.  `report(job, step, stage)` may be
called with the progress of a job.  KeyboardInterrupt stops a launcher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from diffusion.ablations import AblationError
from diffusion.ablations.job import Job
from temporal_zoo._support import submodules
from temporal_zoo.config import nearest

ReportJob = Callable[[Job, int, str], None]
Launch = Callable[[list[Job], int, ReportJob], Iterator[tuple[Job, str | None]]]


def names() -> list[str]:
    """The names of all launchers; imports none of them."""
    return submodules.names(__name__)


def get(name: str) -> Launch:
    """The launcher with this name.  Raises: AblationError, with the list of launchers."""
    if name not in names():
        raise AblationError(f"unknown launcher {name!r}{nearest(name, names())}; choose from {', '.join(names())}")
    return import_module(f"{__name__}.{name}").launch
