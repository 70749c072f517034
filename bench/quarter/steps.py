"""Steps of the whole denoiser: training with its peak memory, and sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from bench.plan.plan import Setup
from bench.sweep import workloads
from bench.sweep.case import Case
from bench.sweep.measure import peak_memory, time_ms
from bench.sweep.outcome import Times
from temporal_zoo.ops import tracing, use_backend

# Seconds of the rounds of a step, and of its warm-up; on a CPU only rehearsed.
_BUDGET_S = {"cuda": 1.0, "cpu": 0.05}


def training_step(
    what: Mapping[str, Any], device: str, note: Callable[[str], object], without: Sequence[str]
) -> dict[str, Any]:
    """Time and peak bytes of a training step of `what["setup"]` (a `Setup`), and the backends that ran."""
    setup, place = Setup.from_dict(what["setup"]), torch.device(device)
    with use_backend(**setup.pins):
        note("making the network")
        return _measured(setup.step(place), place, note)


def sampling_step(
    what: Mapping[str, Any], device: str, note: Callable[[str], object], without: Sequence[str]
) -> dict[str, Any]:
    """Time and peak bytes of a step of the sampler: one pass of the denoiser, and the way to the next clip."""
    setup, place = Setup.from_dict(what["setup"]), torch.device(device)
    case = Case(mixer=setup.mixer, level="model", mode="sample", frames=setup.frames, preset=setup.preset,
                clips=setup.clips, size=setup.size, dtype=setup.dtype, device=device)  # fmt: skip
    with use_backend(**setup.pins):
        note("making the network")
        return _measured(workloads.build(case).step, place, note)


def _measured(step: Callable[[], object], device: torch.device, note: Callable[[str], object]) -> dict[str, Any]:
    note("timing")
    times = time_ms(step, device, budget_s=_BUDGET_S[device.type])
    note("the peak of memory")
    with tracing() as ran:
        try:
            memory = asdict(peak_memory(step, device))
        except ModuleNotFoundError:  # psutil, which counts on a CPU
            memory = None
    backends = {op: sorted(names) for op, names in sorted(ran.items())}
    return {"outcome": "ok", "time_ms": quantiles(times), "memory_bytes": memory, "backends": backends}


def quantiles(times: Times) -> dict[str, float | int | bool]:
    """What a record keeps of the rounds."""
    return {"p10": times.p10, "p50": times.p50, "p90": times.p90, "rounds": times.rounds, "steady": times.steady}
