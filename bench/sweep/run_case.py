"""Runs one case in this process; how it ended is a value, never an exception, so that a sweep goes on."""

from __future__ import annotations

import contextlib
import gc
import traceback
from pathlib import Path

import torch

from temporal_zoo._support.stored_bytes import stored_bytes
from temporal_zoo.ops import BackendError, tracing, use_backend
from temporal_zoo.registry import get
from temporal_zoo.spec import MixerSpec

from . import gate, host_memory, measure, workloads
from .case import Case
from .gate import GateError
from .outcome import Outcome


def run(
    case: Case,
    *,
    budget_s: float = 2.0,
    clock_only: bool = False,
    most_bytes: int | None = None,
    trace: Path | None = None,
) -> Outcome:
    """Gate, time, peak memory and stored bytes of one case.

    Args:
        budget_s: seconds for the rounds of the clock (`measure.time_ms`).
        clock_only: time and nothing else.
        most_bytes: memory that this process may have on the CPU; unless given, nearly all that is free.
        trace: file for a profile of one more step, in the format of Chrome's trace viewer.
    """
    outcome = _attempt(case, budget_s, clock_only, most_bytes, trace)
    # Here and not in a handler: there the exception still holds the frames, and they the tensors.
    gc.collect()
    if torch.device(case.device).type == "cuda":
        torch.cuda.empty_cache()
    return outcome


def _attempt(case: Case, budget_s: float, clock_only: bool, most_bytes: int | None, trace: Path | None) -> Outcome:
    device = torch.device(case.device)
    limit = contextlib.nullcontext() if device.type == "cuda" else host_memory.limited(most_bytes)
    try:
        with limit, use_backend(**case.pins):
            return _clocked(case, device, budget_s) if clock_only else _measured(case, device, budget_s, trace)
    except BackendError as error:
        return Outcome("unsupported", str(error))
    except GateError as error:
        return Outcome("disagrees", str(error))
    except Exception as error:
        if _is_out_of_memory(error):
            return Outcome("out_of_memory", str(error).splitlines()[0] if str(error) else "out of memory")
        return Outcome("failed", f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


def _clocked(case: Case, device: torch.device, budget_s: float) -> Outcome:
    times = measure.time_ms(workloads.build(case).step, device, budget_s=budget_s)
    return Outcome("ok", time_ms=times, threads=torch.get_num_threads())


def _measured(case: Case, device: torch.device, budget_s: float, trace: Path | None) -> Outcome:
    agreement = gate.check(case)
    work = workloads.build(case)
    times = measure.time_ms(work.step, device, budget_s=budget_s)
    memory = measure.peak_memory(work.step, device)
    with tracing() as ran:
        if case.mode == "train":
            stored = stored_bytes(work.forward, work.module)
        else:
            stored = None
            work.step()
    if trace is not None:
        measure.profile(work.step, device, trace)
    spec = MixerSpec.parse(case.mixer)
    entry = get(spec.name)
    return Outcome(
        "ok",
        time_ms=times,
        memory=memory,
        stored_bytes=stored,
        num_parameters=sum(parameter.numel() for parameter in work.module.parameters()),
        backends={op: sorted(backends) for op, backends in sorted(ran.items())},
        agreement=agreement,
        declared={"time": entry.time, "memory": entry.memory},
        options=spec.config().to_dict(),
        threads=torch.get_num_threads(),
        trace=trace.name if trace else None,
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA's own exception, Python's, and the RuntimeError of torch's CPU allocator, which has no type of its own."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    # The last: more bytes than 64 bits can count.
    words = ("can't allocate memory", "not enough memory", "storage size calculation overflowed")
    return isinstance(error, RuntimeError) and any(each in text for each in words)
