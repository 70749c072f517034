"""Speed of every mixer on small shapes, for regressions: `nox -s speed`, with pytest-benchmark's clock."""

import pytest
import torch

from bench.sweep import measure
from bench.sweep.case import expand
from bench.sweep.workloads import build
from temporal_zoo._support.stored_bytes import stored_bytes
from temporal_zoo.ops import tracing
from temporal_zoo.registry import names

pytestmark = pytest.mark.speed


@pytest.mark.parametrize("frames", [16, 64])
@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("mixer", names())
def test_speed(benchmark, mixer, mode, frames):
    (case,) = expand(layers=mixer, lengths=str(frames), level="mixer", mode=mode, rows=8, dim=32)
    work = build(case)
    with tracing() as ran:
        stored = stored_bytes(work.forward, work.module)
    benchmark.group = f"{mode}, {frames} frames"
    benchmark.extra_info |= {
        "case": case.to_dict(),
        "stored_bytes": stored,
        "backends": {op: sorted(backends) for op, backends in ran.items()},
    }
    benchmark(work.step)
    benchmark.extra_info["peak_bytes"] = measure.peak_memory(work.step, torch.device(case.device)).above
