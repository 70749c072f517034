"""Where jobs run.  A file here is a launcher; `zoo ablate --launcher NAME` takes it.

A module has one function,

    launch(jobs: list[Job], workers: int, watch: Watch) -> Iterator[tuple[Job, str | None]]

which does the jobs, `workers` at a time, and yields each when it has ended, with the reason when it failed.  Results
lie in the jobs' folder, which all workers must share.  `watch(job, step, doing)` may be told how far a job is.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from diffusion.ablations import AblationError
from diffusion.ablations.job import Job
from temporal_zoo.config import nearest

Watch = Callable[[Job, int, str], None]
Launch = Callable[[list[Job], int, Watch], Iterator[tuple[Job, str | None]]]


def names() -> list[str]:
    """The launchers there are; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))


def get(name: str) -> Launch:
    """The launcher of that name.  Raises: AblationError, listing the launchers."""
    if name not in names():
        raise AblationError(f"there is no launcher {name!r}{nearest(name, names())}; there are {', '.join(names())}")
    return import_module(f"{__name__}.{name}").launch
