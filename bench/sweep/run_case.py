"""Runs one case in this process and returns its outcome; errors are outcomes too, so that a sweep continues."""

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


def run_case(
    case: Case,
    *,
    budget_s: float = 2.0,
    time_only: bool = False,
    max_bytes: int | None = None,
    trace: Path | None = None,
) -> Outcome:
    """Compares a case with the reference; measures its time, peak memory and stored bytes.

    Args:
        budget_s: seconds for the timed rounds (`measure.time_ms`).
        time_only: measures only the time.
        max_bytes: memory limit of this process on the CPU; by default nine tenths of the available memory.
        trace: file for a profile of one more step, in the format of Chrome's trace viewer.
    """
    outcome = _outcome(case, budget_s, time_only, max_bytes, trace)
    # After the exception handlers: an exception refers to frames, which refer to tensors.
    gc.collect()
    if torch.device(case.device).type == "cuda":
        torch.cuda.empty_cache()
    return outcome


def _outcome(case: Case, budget_s: float, time_only: bool, max_bytes: int | None, trace: Path | None) -> Outcome:
    device = torch.device(case.device)
    limit = contextlib.nullcontext() if device.type == "cuda" else host_memory.limited(max_bytes)
    try:
        with limit, use_backend(**case.pins):
            return _time(case, device, budget_s) if time_only else _measure(case, device, budget_s, trace)
    except BackendError as error:
        return Outcome("unsupported", str(error))
    except GateError as error:
        return Outcome("disagrees", str(error))
    except Exception as error:
        if _is_out_of_memory(error):
            return Outcome("out_of_memory", str(error).splitlines()[0] if str(error) else "out of memory")
        return Outcome("failed", f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


def _time(case: Case, device: torch.device, budget_s: float) -> Outcome:
    times = measure.time_ms(workloads.build(case).step, device, budget_s=budget_s)
    return Outcome("ok", time_ms=times, threads=torch.get_num_threads())


def _measure(case: Case, device: torch.device, budget_s: float, trace: Path | None) -> Outcome:
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
    """Whether an error is CUDA's, Python's, or the plain RuntimeError of torch's CPU allocator."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    # The third message: the number of bytes does not fit into 64 bits.
    words = ("can't allocate memory", "not enough memory", "storage size calculation overflowed")
    return isinstance(error, RuntimeError) and any(each in text for each in words)
