"""`zoo reproduce 2403.07711`: counts the sizes and the memory of the paper's models, without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench.plan.accounting import account
from bench.plan.devices import GIB
from bench.plan.pool import planners
from bench.sweep.training_step import paper_model, training_step
from temporal_zoo.ops import Planned, planning, use_backend

from . import facts
from .control import COLUMNS, PlannedColumn, advantage, planned

_A100 = Planned("cuda", (8, 0))
_FLOAT32_BYTES = 4
WITHIN = 0.10


@dataclass(frozen=True)
class CountedSize:
    """Parameters of one model.

    Args:
        size: the printed size, which names the model.
        ours: parameters of our network.
        besides: parameters that the official code counts and never trains.
        paper: parameters of the official classes.
    """

    size: str
    mixer: str
    ours: int
    besides: int
    paper: int

    @property
    def agrees(self) -> bool:
        """Whether both totals are equal, and round to the printed size."""
        return self.ours + self.besides == self.paper and f"{self.paper / 1e6:.3g}M" == self.size


@dataclass(frozen=True)
class CountedMemory:
    """One entry of the memory column, in bytes of all eight GPUs, without the fitted constant.

    Args:
        stored: bytes that the forward passes keep for backward.
        reserved: bytes that the allocators of eight GPUs reserve for a training step of one clip each, weights and
            gradients included.
        first: bytes that only the first GPU holds: Adam's two moments and the average of the weights.
    """

    entry: facts.MemoryEntry
    mixer: str
    stored: int
    reserved: int
    first: int

    @property
    def counted(self) -> int:
        """All counted bytes."""
        return self.reserved + self.first

    @property
    def paper(self) -> float:
        """The printed number in bytes, as `facts.READING` says."""
        return self.entry.memory_gb * GIB

    def predicted(self, constant: float) -> float:
        """The counted bytes and the fitted constant of each GPU."""
        return self.counted + facts.GPUS * constant

    def error(self, constant: float) -> float:
        """The error of the prediction, relative to the printed number."""
        return self.predicted(constant) / self.paper - 1


@dataclass(frozen=True)
class Reproduction:
    """All comparisons that need no GPU; `constant` is in bytes per GPU."""

    sizes: tuple[CountedSize, ...]
    memory: tuple[CountedMemory, ...]
    constant: float
    control: tuple[PlannedColumn, ...] = ()

    @property
    def within(self) -> int:
        """How many entries of the memory column are predicted within 10 %."""
        return sum(abs(row.error(self.constant)) <= WITHIN for row in self.memory)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        memory = [
            {
                **asdict(row.entry), "mixer": row.mixer, "stored_bytes": row.stored, "counted_bytes": row.counted,
                "predicted_gib": row.predicted(self.constant) / GIB, "error": row.error(self.constant),
                "fitted": row.entry in facts.FITTED,
            }
            for row in self.memory
        ]  # fmt: skip
        sizes = [{**asdict(row), "agrees": row.agrees} for row in self.sizes]
        return {
            "paper": facts.ARXIV, "sizes": sizes, "constant_gib_per_gpu": self.constant / GIB, "memory": memory,
            "control": [asdict(column) for column in self.control],
            "advantage_bytes": dict(advantage(self.control)) if self.control else {},
            "within_10_percent": self.within, "reading": facts.READING, "contradictions": facts.CONTRADICTIONS,
        }  # fmt: skip


def reproduce(report: Callable[[str], object] = lambda what: None) -> Reproduction:
    """Counts everything, with one process for each core.

    Args:
        report: receives the name of each part before the function waits for it.
    """
    with planners() as pool:
        counts = [pool.submit(_memory, entry) for entry in facts.MEMORY]
        columns = [pool.submit(planned, column, dtype) for column in COLUMNS for dtype in column.dtypes]
        report("parameters")
        sizes = tuple(_size(size, model) for size, model in facts.MODELS.items())
        memory = []
        for entry, count in zip(facts.MEMORY, counts, strict=True):
            report(f"memory of {entry.size} at {entry.frames} frames")
            memory.append(count.result())
        report("the control")
        return Reproduction(sizes, tuple(memory), fitted(memory), tuple(plan.result() for plan in columns))


def fitted(memory: Sequence[CountedMemory]) -> float:
    """The constant: the mean of printed minus counted bytes per GPU, over the rows of Table 2 at 64 frames."""
    missing = [(row.paper - row.counted) / facts.GPUS for row in memory if row.entry in facts.FITTED]
    return sum(missing) / len(missing)


def _size(size: str, model: facts.Model) -> CountedSize:
    mixer, network = paper_model(size)
    ours = sum(parameter.numel() for parameter in network.parameters())
    return CountedSize(size, mixer, ours, model.untrained, model.parameters)


def _memory(entry: facts.MemoryEntry) -> CountedMemory:
    with planning(_A100), use_backend(**facts.PINS):
        step = training_step(
            f"paper-{entry.size}", clips=1, frames=entry.frames, device=torch.device("meta"), updates=False
        )
        # The official code drops the gradients after every step; our trainer keeps them until the next step.
        counted = account(step, "cuda", gradients_before=False)
    assert counted.reserved is not None
    first = 3 * _FLOAT32_BYTES * sum(parameter.numel() for parameter in step.network.parameters())
    mixer = facts.MODELS[entry.size].mixer
    return CountedMemory(entry, mixer, facts.GPUS * counted.stored, facts.GPUS * counted.reserved, first)
