"""A control experiment for arXiv 2403.07711, planned and measured.

It adds fused attention and recomputed layers to the columns of the paper.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from bench.plan.devices import device
from bench.plan.plan import Planner, Setup
from bench.sweep.measure import peak_memory, time_ms
from temporal_zoo._support.arithmetic import set_arithmetic
from temporal_zoo._support.environment import environment
from temporal_zoo._support.record import Session, read
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import use_backend

from . import facts

log = logging.getLogger("temporal_zoo.bench")

KIND = "control"
FRAMES = max(facts.LENGTHS)  # the clip length of the plans
Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")


class ControlError(InvalidInput):
    """The control cannot be measured; the message says why."""


@dataclass(frozen=True)
class Column:
    """One way to train the network: its temporal layers, the recomputed layers, the pinned backends."""

    name: str
    mixer: str
    checkpointing: Literal["none", "mixers", "blocks"] = "none"
    backends: tuple[str, ...] = ()
    dtypes: tuple[Dtype, ...] = DTYPES

    def setup(self, frames: int, dtype: Dtype = "float32") -> Setup:
        """The setup for one clip and width 64, as in the 56.3M and 57.5M models of the paper."""
        return Setup(
            mixer=self.mixer, frames=frames, checkpointing=self.checkpointing, backends=self.backends, dtype=dtype
        )


@dataclass(frozen=True)
class PlannedColumn:
    """The plan of a column.

    Args:
        stored: bytes that the forward pass keeps for backward, at `FRAMES` frames.
        peak: bytes at the peak of the training step, at `FRAMES` frames.
        longest: frames of the longest clip that fits.
        backends: texts such as "attention=sdpa (efficient kernel)".
    """

    column: str
    dtype: str
    stored: int
    peak: int
    longest: int
    backends: tuple[str, ...]


_HELD = ("attention=reference",)
_BIAS = "relative_bias=yes"
PUBLISHED = Column("attention with bias, weights held", f"attn:{_BIAS}", backends=_HELD)
PROPOSED = Column("bimamba", "bimamba")
_FUSED = Column("attention with bias, fused", f"flash:{_BIAS}")
_FUSED_RECOMPUTED = Column("attention with bias, fused, recomputed", f"flash:{_BIAS}", "mixers")
# The rows of the table.  Each row differs from the one before it by the bias, by fusing, or by recomputation.
COLUMNS = (
    PUBLISHED,
    Column("attention with bias, weights held, recomputed", f"attn:{_BIAS}", "mixers", _HELD),
    _FUSED,
    _FUSED_RECOMPUTED,
    Column("attention, weights held", "attn", backends=_HELD),
    Column("attention, weights held, recomputed", "attn", "mixers", _HELD),
    Column("attention, fused", "flash"),
    Column("attention, fused, recomputed", "flash", "mixers"),
    # The cuDNN kernel supports half precision only.
    Column("attention, fused by cuDNN", "flash", backends=("attention=cudnn",), dtypes=("bfloat16",)),
    Column("s4d", "s4d"),
    Column("s4d, recomputed", "s4d", "mixers"),
    Column("mamba", "mamba"),
    Column("mamba, recomputed", "mamba", "mixers"),
    PROPOSED,
    Column("bimamba, recomputed", "bimamba", "mixers"),
    Column("identity: no temporal layer", "identity"),
)
# From the published baseline to the proposed layer, one change at a time.
STEPS = (
    ("fusing the attention", PUBLISHED, _FUSED),
    ("recomputing the attention layers in the backward pass", _FUSED, _FUSED_RECOMPUTED),
    ("the state space layer in place of attention", _FUSED_RECOMPUTED, PROPOSED),
)


def planned(column: Column, dtype: Dtype) -> PlannedColumn:
    """Plans a column for the GPU of the paper."""
    planner, setup = Planner(device(facts.GPU)), column.setup(FRAMES, dtype)
    plan = planner.plan(setup)
    longest = planner.longest(setup, (64, FRAMES, 1024))
    return PlannedColumn(column.name, dtype, plan.bytes.stored, plan.bytes.peak, longest, plan.backend_labels)


def advantage(plans: Sequence[PlannedColumn]) -> list[tuple[str, int]]:
    """Splits the published advantage in peak bytes, in float32: each change with the bytes that it saves."""
    peaks = {plan.column: plan.peak for plan in plans if plan.dtype == "float32"}
    return [(change, peaks[before.name] - peaks[after.name]) for change, before, after in STEPS]


def run(record: Path, report: Callable[[str], object]) -> None:
    """Measures every column at every length and dtype, and appends the results to `record`.

    Raises:
        ControlError: torch finds no GPU.
    """
    if not torch.cuda.is_available():
        raise ControlError("--measure needs a CUDA device, and torch finds none; run the command without --measure")
    set_arithmetic()
    session = Session(record, environment())
    for column in COLUMNS:
        for frames, dtype in itertools.product(facts.LENGTHS, column.dtypes):
            setup = column.setup(frames, dtype)
            result = _measured(setup)
            session.write(KIND, {"column": column.name, "setup": setup.to_dict(), **result})
            report(f"{column.name}, {frames} frames, {dtype}: {result['outcome']}")


def read_all(record: Path) -> list[dict[str, Any]]:
    """Reads the last measurement of each column, length and dtype, and adds the name of its GPU."""
    if not record.exists():
        return []
    reading = read(record)
    latest = {}
    for number, row in reading.numbered(KIND):
        if _is_complete(row):
            latest[row["column"], *map(row["setup"].get, ("frames", "dtype"))] = row
        else:
            log.warning("%s:%d is not a measurement of the control; the page does not show it", record, number)
    return [row | {"gpu": _gpu(reading.environments.get(row["environment"], {}))} for row in latest.values()]


def _is_complete(row: dict[str, Any]) -> bool:
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
