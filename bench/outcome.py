"""Runs one case; how it ended is a value, never an exception, so that a sweep goes on."""

from __future__ import annotations

import contextlib
import gc
import traceback
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from temporal_zoo.ops import BackendError, tracing, use_backend

from . import gate, host_memory, measure, workloads
from .case import Case
from .gate import Agreement
from .measure import Memory, Times

Status = Literal["ok", "out_of_memory", "unsupported", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a case ended; what was measured is None unless `status` is "ok".

    `stored_bytes` belongs to training: a forward pass alone stores nothing.  `bodies` says which body ran for each op.
    """

    status: Status
    reason: str = ""
    time_ms: Times | None = None
    memory: Memory | None = None
    stored_bytes: int | None = None
    num_parameters: int | None = None
    bodies: dict[str, list[str]] = field(default_factory=dict)
    agreement: Agreement | None = None
    traceback: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        memory = self.memory and {**asdict(self.memory), "above": self.memory.above}
        return {
            "outcome": self.status,
            "reason": self.reason,
            "time_ms": self.time_ms and asdict(self.time_ms),
            "memory_bytes": memory,
            "stored_bytes": self.stored_bytes,
            "num_parameters": self.num_parameters,
            "bodies": self.bodies,
            "gate": self.agreement and asdict(self.agreement),
            "traceback": self.traceback,
        }


def run(case: Case, *, budget_s: float = 2.0) -> Outcome:
    """Gate, time, peak memory and stored bytes of one case.

    Args:
        budget_s: seconds for the rounds of the clock (`measure.time_ms`).
    """
    outcome = _attempt(case, budget_s)
    # Here and not in a handler: there the exception still holds the frames, and they the tensors.
    gc.collect()
    if torch.device(case.device).type == "cuda":
        torch.cuda.empty_cache()
    return outcome


def _attempt(case: Case, budget_s: float) -> Outcome:
    device = torch.device(case.device)
    limit = contextlib.nullcontext() if device.type == "cuda" else host_memory.limited()
    try:
        with limit, use_backend(**case.pins):
            return _measured(case, device, budget_s)
    except BackendError as error:
        return Outcome("unsupported", str(error))
    except Exception as error:
        if _is_out_of_memory(error):
            return Outcome("out_of_memory", str(error).splitlines()[0] if str(error) else "out of memory")
        return Outcome("failed", f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


def _measured(case: Case, device: torch.device, budget_s: float) -> Outcome:
    agreement = gate.check(case)
    work = workloads.build(case)
    times = measure.time_ms(work.step, device, budget_s=budget_s)
    memory = measure.peak_memory(work.step, device)
    with tracing() as ran:
        if case.mode == "train":
            stored = measure.stored_bytes(work.forward, work.module)
        else:
            stored = None
            work.step()
    return Outcome(
        "ok",
        time_ms=times,
        memory=memory,
        stored_bytes=stored,
        num_parameters=sum(parameter.numel() for parameter in work.module.parameters()),
        bodies={op: sorted(bodies) for op, bodies in sorted(ran.items())},
        agreement=agreement,
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA's own exception, Python's, and the RuntimeError of torch's CPU allocator, which has no type of its own."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
