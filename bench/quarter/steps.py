"""Measures training steps and sampling steps of the whole denoiser: time and peak memory."""

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

# Seconds for the rounds of a step, and for its warm-up; a CPU only runs rehearsals.
_BUDGET_S = {"cuda": 1.0, "cpu": 0.05}


def training_step(
    what: Mapping[str, Any], device: str, note: Callable[[str], object], without: Sequence[str]
) -> dict[str, Any]:
    """Measures a training step of `what["setup"]` (a `Setup`): time, peak bytes, and the backends that ran."""
    setup, place = Setup.from_dict(what["setup"]), torch.device(device)
    with use_backend(**setup.pins):
        note("building the network")
        return _measured(setup.step(place), place, note)


def sampling_step(
    what: Mapping[str, Any], device: str, note: Callable[[str], object], without: Sequence[str]
) -> dict[str, Any]:
    """Measures a step of the sampler (one pass of the denoiser and the update of the clip): time and peak bytes."""
    setup, place = Setup.from_dict(what["setup"]), torch.device(device)
    case = Case(mixer=setup.mixer, level="model", mode="sample", frames=setup.frames, preset=setup.preset,
                clips=setup.clips, size=setup.size, dtype=setup.dtype, device=device)  # fmt: skip
    with use_backend(**setup.pins):
        note("building the network")
        return _measured(workloads.build(case).step, place, note)


def _measured(step: Callable[[], object], device: torch.device, note: Callable[[str], object]) -> dict[str, Any]:
    note("timing")
    times = time_ms(step, device, budget_s=_BUDGET_S[device.type])
    note("measuring the peak of memory")
    with tracing() as ran:
        try:
            memory = asdict(peak_memory(step, device))
        except ModuleNotFoundError:  # psutil, which is needed on a CPU, is missing
            memory = None
    backends = {op: sorted(names) for op, names in sorted(ran.items())}
    return {"outcome": "ok", "time_ms": quantiles(times), "memory_bytes": memory, "backends": backends}


def quantiles(times: Times) -> dict[str, float | int | bool]:
    """The quantiles of the rounds, for a record."""
    return {"p10": times.p10, "p50": times.p50, "p90": times.p90, "rounds": times.rounds, "steady": times.steady}
