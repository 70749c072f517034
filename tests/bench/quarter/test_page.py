"""The page of a GPU run: every kind of record, and every outcome."""

import pytest

from bench.quarter.cases import GpuCase
from bench.quarter.page import page
from bench.quarter.results import RECORD, GpuResults
from temporal_zoo._support.record import RecordError, Session

ENVIRONMENT = {
    "id": "one",
    "devices": [{"name": "NVIDIA H200"}],
    "arithmetic": {"tf32_matmul": False, "tf32_cudnn": False},
    "software": {"python": "3.12", "torch": "2.11", "triton": "3.6", "cuda": "13.0", "cudnn": 9},
    "code": {"version": "0.1", "commit": "abcdef0123456789", "dirty": False, "sources": "ours"},
}
GIB = 2**30
TIMES = {"p10": 9.0, "p50": 10.0, "p90": 11.0, "rounds": 5, "steady": True}


@pytest.fixture
def results(tmp_path):
    return GpuResults(tmp_path / RECORD, ENVIRONMENT, "cuda")


@pytest.fixture
def drawn(tmp_path):
    return lambda: page(tmp_path / RECORD)


def compared(results, backend, **answer):
    what = {"op": "attention", "backend": backend, "dtype": "float32", "shapes": [[3, 1, 64], [5, 257, 64]]}
    about = {"op": "attention", "backend": backend, "dtype": "float32", "tolerance": 1e-4, "outcome": "ok"}
    results.write(GpuCase("agreement", what, 1.0), about | answer, 1.0, 1.0)


def step(results, row, frames, kind="training_step", **answer):
    setup = {"frames": frames, "dtype": "float32", "preset": "paper-57.5M", "clips": 1, "size": 32}
    memory = {"counted": "peak allocated", "before": 0, "peak": 10 * GIB, "reserved": None}
    answer = {"outcome": "ok", "time_ms": TIMES, "memory_bytes": memory} | answer
    results.write(GpuCase(kind, {"row": row, "setup": setup}, 1.0), answer, 1.0, 1.0)


def kernels(results, contenders, frames=16):
    what = {"op": "attention", "rows": 8, "frames": frames, "channels": 128, "dtype": "float32"}
    floors = {mode: {"bytes": 8, "bytes_ms": 2.0, "exps": 9, "exps_ms": 4.0} for mode in ("forward", "train")}
    limits = {"copy_bytes_per_s": 3.0e12, "exps_per_s": 3.5e12}
    answer = {"outcome": "ok", "contenders": contenders, "floors_ms": floors, "ceilings": limits}
    results.write(GpuCase("kernels", what, 1.0), answer, 1.0, 1.0)


def test_the_page_starts_with_agreement_errors_and_refusals(results, drawn):
    step(results, "bimamba", 16)
    compared(results, "sdpa", error=3e-7, agrees=True, worst="3 rows")
    compared(results, "triton", error=0.5, agrees=False, worst="3 rows, 1 frames")
    compared(results, "blocked", error=None, agrees=False, worst="5 rows")
    compared(results, "xformers", outcome="unsupported", reason="xformers is not installed", error=None, agrees=None)
    text = drawn()
    assert text.index("### Agreement") < text.index("### A training step")
    assert "over rows of 1, 257 frames" in text
    assert "| attention | sdpa |  | 3.0e-07 |" in text
    assert "**5.0e-01: disagrees**, 3 rows, 1 frames" in text
    assert "**not finite: disagrees**" in text
    assert "Cannot run here: attention/xformers: xformers is not installed." in text
    assert "NVIDIA H200" in text
    assert "TF32 is off." in text
    assert "commit abcdef012345" in text


def test_kernels_are_compared_with_the_larger_floor(results, drawn):
    kernels(results, {
        "sdpa": {"role": "ours", "outcome": "ok", "forward_ms": TIMES, "train_ms": TIMES},
        "triton": {"role": "ours", "outcome": "unsupported", "reason": "takes at most 64 frames"},
        "SDPA, cuDNN": {"role": "torch", "outcome": "disagrees", "reason": "differs from the reference by 1.0e-01"},
    })  # fmt: skip
    text = drawn()
    assert "| sdpa | 10.0 ±10 % (2.50x) | 10.0 ±10 % (2.50x) |" in text
    assert "| floor: exponentials | 4.00 | 4.00 |" in text
    assert "3.00 TB/s copied" in text
    assert "| triton" not in text
    assert "disagrees, not timed" in text
    assert "SDPA, cuDNN: differs from the reference by 1.0e-01" in text


def test_the_page_shows_measured_and_planned_peaks(results, drawn):
    step(results, "bimamba", 16, planned={"peak": 9 * GIB, "fit": "yes"})
    step(results, "bimamba", 1024, outcome="too_large", planned={"peak": 200 * GIB, "fit": "no"})
    step(results, "bimamba", 512, outcome="out_of_memory", reason="CUDA out of memory", planned={"peak": 79 * GIB})
    text = drawn()
    assert "|  | 16 frames | 512 frames | 1,024 frames |" in text
    assert "| bimamba | 10.0 / 9.00 (-10.0 %) | out of memory / 79.0 | does not fit / 200 |" in text
    assert "| bimamba | 10.0 ±10 % | out of memory | does not fit |" in text


def test_the_page_has_a_table_of_sampling_steps(results, drawn):
    step(results, "flash", 256, kind="sampling_step")
    assert "### A sampling step" in drawn()
    assert "| flash | 10.0 ±10 % |" in drawn()


def test_a_failed_case_is_listed_with_the_part_that_ran(results, drawn):
    compared(results, "triton", outcome="crashed", reason="illegal memory access", during="3 rows, 1 frames")
    text = drawn()
    assert "### Without an answer" in text
    assert "agreement attention triton float32: crashed, during 3 rows, 1 frames. illegal memory access" in text
    compared(results, "triton", error=1e-7, agrees=True, worst="3 rows")
    assert "### Without an answer" not in drawn()  # the last line of a case counts


def test_each_device_has_a_section_and_old_sources_have_none(tmp_path, drawn):
    for sources, device in (("old", "NVIDIA H200"), ("ours", "NVIDIA H200"), ("ours", "NVIDIA A100")):
        code = ENVIRONMENT["code"] | {"sources": sources}
        environment = ENVIRONMENT | {"id": f"{sources} {device}", "code": code, "devices": [{"name": device}]}
        step(GpuResults(tmp_path / RECORD, environment, "cuda"), f"{sources} row", 16)
    text = drawn()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## NVIDIA H200", "## NVIDIA A100"]
    assert text.count("| ours row |") == 4
    assert "old row" not in text


def test_a_file_without_measurements_raises(tmp_path, drawn):
    Session(tmp_path / RECORD, ENVIRONMENT)
    with pytest.raises(RecordError, match="has no measurement"):
        drawn()
