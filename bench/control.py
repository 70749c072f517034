"""The control that arXiv 2403.07711 lacks, on a GPU: fused and checkpointed attention beside its two columns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from temporal_zoo.arithmetic import set_arithmetic
from temporal_zoo.environment import environment
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import use_backend
from temporal_zoo.record import Session, read

from .devices import device
from .measure import peak_memory, time_ms
from .plan import Planner, Setup

log = logging.getLogger("temporal_zoo.bench")

KIND = "control"
LENGTHS = (16, 64, 256)
FRAMES = 256  # what the plan of the control is for


class ControlError(InvalidInput):
    """Nothing can be measured; the message says why."""


@dataclass(frozen=True)
class Column:
    """A column of the control: what is trained, and what it is called."""

    name: str
    mixer: str
    checkpointing: Literal["none", "mixers", "blocks"] = "none"
    backends: tuple[str, ...] = ()

    def setup(self, frames: int) -> Setup:
        """One clip and width 64, as in the paper's 56.3M and 57.5M."""
        return Setup(mixer=self.mixer, frames=frames, checkpointing=self.checkpointing, backends=self.backends)


@dataclass(frozen=True)
class PlannedColumn:
    """What is planned for a column: bytes stored and at the peak of a step of `FRAMES`, and the longest clip."""

    column: str
    stored: int
    peak: int
    longest: int


# The kernels of mamba_ssm may be missing; then the scan is whatever runs here, and the record says which.
COLUMNS = (
    Column("attention, weights held", "attn:relative_bias=yes", backends=("attention=reference",)),
    Column("attention, weights held, checkpointed", "attn:relative_bias=yes", "mixers", ("attention=reference",)),
    Column("attention, fused", "flash"),
    Column("Mamba", "mamba"),
    Column("Mamba in both directions", "bimamba"),
)


def planned(column: Column) -> PlannedColumn:
    """A column of the control as it is planned for the paper's GPU."""
    planner, setup = Planner(device("a100-40gb")), column.setup(FRAMES)
    sizes = planner.plan(setup).bytes
    longest = planner.longest(setup, (64, FRAMES, 1024))
    return PlannedColumn(column.name, sizes.stored, sizes.peak, longest)


def run(record: Path, talk: Callable[[str], object]) -> None:
    """Measures every column at every length, width 64 and one clip as in the paper, and appends them to `record`.

    Raises:
        ControlError: there is no GPU here.
    """
    if not torch.cuda.is_available():
        raise ControlError("--measure needs a CUDA device, and torch sees none here; without it all else is counted")
    set_arithmetic()
    session = Session(record, environment())
    for column in COLUMNS:
        for frames in LENGTHS:
            setup = column.setup(frames)
            found = _measured(setup)
            session.write(KIND, {"column": column.name, "setup": setup.to_dict(), **found})
            talk(f"{column.name}, {frames} frames: {found['outcome']}")


def read_all(record: Path) -> list[dict[str, Any]]:
    """What was measured before, the latest of each column and length; each with the name of its GPU."""
    if not record.exists():
        return []
    reading = read(record)
    latest = {}
    for number, row in reading.numbered(KIND):
        if _can_be_used(row):
            latest[row["column"], row["setup"]["frames"]] = row
        else:
            log.warning("%s:%d is no measurement of the control and was left out", record, number)
    return [row | {"gpu": _gpu(reading.environments.get(row["environment"], {}))} for row in latest.values()]


def _can_be_used(row: dict[str, Any]) -> bool:
    setup, numbers = row.get("setup"), [row.get(name) for name in ("train_ms", "sample_ms", "peak_bytes")]
    known = isinstance(row.get("column"), str) and isinstance(setup, dict) and isinstance(setup.get("frames"), int)
    return known and (
        row.get("outcome") == "out of memory"
        or (row.get("outcome") == "ok" and all(isinstance(value, (int, float)) for value in numbers))
    )


def _gpu(environment: dict[str, Any]) -> str:
    devices = environment.get("devices")
    rows = [each for each in devices if isinstance(each, dict)] if isinstance(devices, list) else []
    return next((str(each["name"]) for each in rows if "name" in each), "unknown GPU")


def _measured(setup: Setup) -> dict[str, Any]:
    cuda = torch.device("cuda")
    try:
        with use_backend(**setup.pins):
            step = setup.step(cuda)
            train = time_ms(step, cuda)
            memory = peak_memory(step, cuda)

            @torch.no_grad()
            def sample() -> None:
                step.network(step.noisy, step.levels)

            times = time_ms(sample, cuda)
    except torch.OutOfMemoryError:
        return {"outcome": "out of memory"}
    finally:
        torch.cuda.empty_cache()
    return {"outcome": "ok", "train_ms": train.p50, "sample_ms": times.p50, "peak_bytes": memory.peak}
