"""`zoo reproduce 2403.07711`: the paper's sizes and memory beside what is counted here, without a GPU."""

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
_BYTES = 4
WITHIN = 0.10


@dataclass(frozen=True)
class Size:
    """Parameters of one model: ours, what the paper's code counts besides, and the paper's."""

    size: str
    mixer: str
    ours: int
    besides: int
    paper: int

    @property
    def agrees(self) -> bool:
        """To the unit, and as printed."""
        return self.ours + self.besides == self.paper and f"{self.paper / 1e6:.3g}M" == self.size


@dataclass(frozen=True)
class Memory:
    """One entry of the memory column, in bytes of all eight GPUs, before the fitted constant is added.

    `reserved` is what the allocators of eight GPUs hold for a training step of one clip each, weights and gradients
    included; `first` is what the first GPU has besides, Adam's two moments and the average of the weights.
    """

    entry: facts.Entry
    mixer: str
    stored: int
    reserved: int
    first: int

    @property
    def counted(self) -> int:
        """All that is counted."""
        return self.reserved + self.first

    @property
    def paper(self) -> float:
        """The paper's number, in bytes under the reading of `paper.READING`."""
        return self.entry.memory_gb * GIB

    def predicted(self, constant: float) -> float:
        """With the fitted bytes per GPU."""
        return self.counted + facts.GPUS * constant

    def error(self, constant: float) -> float:
        """Relative to the paper's number."""
        return self.predicted(constant) / self.paper - 1


@dataclass(frozen=True)
class Reproduction:
    """Everything that is compared without a GPU; `constant` is in bytes per GPU."""

    sizes: tuple[Size, ...]
    memory: tuple[Memory, ...]
    constant: float
    control: tuple[PlannedColumn, ...] = ()

    @property
    def within(self) -> int:
        """Entries of the memory column that are met within ten per cent."""
        return sum(abs(row.error(self.constant)) <= WITHIN for row in self.memory)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
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


def reproduce(told: Callable[[str], object] = lambda what: None) -> Reproduction:
    """Counts everything anew, in as many processes as there are cores; `told` hears what is waited for."""
    with planners() as pool:
        counting = [pool.submit(_memory, entry) for entry in facts.MEMORY]
        columns = [pool.submit(planned, column, dtype) for column in COLUMNS for dtype in column.dtypes]
        told("parameters")
        sizes = tuple(_size(size, parameters) for size, parameters in facts.SIZES.items())
        memory = []
        for entry, count in zip(facts.MEMORY, counting, strict=True):
            told(f"memory of {entry.size} at {entry.frames} frames")
            memory.append(count.result())
        told("the control")
        return Reproduction(sizes, tuple(memory), fitted(memory), tuple(plan.result() for plan in columns))


def fitted(memory: Sequence[Memory]) -> float:
    """The one constant: bytes per GPU that are missing in the rows of Table 2 at 64 frames, on average."""
    missing = [(row.paper - row.counted) / facts.GPUS for row in memory if row.entry in facts.FITTED]
    return sum(missing) / len(missing)


def _size(size: str, parameters: int) -> Size:
    mixer, heads, network = paper_model(size)
    ours = sum(parameter.numel() for parameter in network.parameters())
    attention = mixer.startswith("attn")
    return Size(size, mixer, ours, facts.ROTARY_FREQUENCIES if attention else facts.BIAS_BUCKETS * heads, parameters)


def _memory(entry: facts.Entry) -> Memory:
    with planning(_A100), use_backend(**facts.PINS):
        step = training_step(
            f"paper-{entry.size}", clips=1, frames=entry.frames, device=torch.device("meta"), updates=False
        )
        # Its code drops the gradients after every step; ours keeps them until the next one has its own.
        found = account(step, "cuda", gradients_before=False)
    assert found.reserved is not None
    first = 3 * _BYTES * sum(parameter.numel() for parameter in step.network.parameters())
    mixer = paper_model(entry.size)[0].partition(":")[0]
    return Memory(entry, mixer, facts.GPUS * found.stored, facts.GPUS * found.reserved, first)
