"""Speed of every mixer on small shapes, for regressions: `nox -s speed`, with pytest-benchmark's clock."""

import pytest
import torch

from bench import measure
from bench.case import expand
from bench.workloads import build
from temporal_zoo.ops import tracing
from temporal_zoo.registry import names
from temporal_zoo.stored import stored_bytes

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
        "bodies": {op: sorted(bodies) for op, bodies in ran.items()},
    }
    benchmark(work.step)
    benchmark.extra_info["peak_bytes"] = measure.peak_memory(work.step, torch.device(case.device)).above
