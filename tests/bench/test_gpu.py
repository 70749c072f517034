"""`python -m bench.gpu`: its commands without a GPU; the test of the whole rehearsal is `slow`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import gpu
from bench.plan.devices import like
from bench.quarter import plans, process
from bench.quarter.process import QuarterError
from temporal_zoo._support.record import read

ENVIRONMENT = {
    "id": "one",
    "machine": {"memory_bytes": 2**36},
    "devices": [{"name": "NVIDIA H200", "memory_bytes": 150 * 10**9}],
    "software": {"python": "3.12", "torch": "2.11", "triton": "3.6", "cuda": "13.0", "cudnn": 9},
    "code": {"version": "0.1", "commit": None, "dirty": None, "sources": "ours"},
}
BACKENDS = {name: ["torch", "reference"] for name in ("attention", "causal_conv", "diagonal_ssm", "selective_scan")}


class NoProcess:
    """Answers immediately that the machine cannot run the case."""

    def ask(self, job, limit_s):
        return {"outcome": "unsupported", "reason": "not here"}

    def close(self):
        pass


class NoProcesses:
    def __init__(self, device):
        self.device = device

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self):
        if self.device == "cuda:7":
            raise QuarterError("cannot measure on cuda:7: torch 2.13 finds no CUDA device")
        return NoProcess(), {"outcome": "ok", "environment": ENVIRONMENT, "backends": BACKENDS}


class NoPlans:
    def __init__(self, device):
        assert device == "h200"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def expect(self, cases):
        pass

    def of(self, case):
        return None


@pytest.fixture
def quarter(monkeypatch, tmp_path):
    """Calls the command with fake processes."""
    monkeypatch.setattr(process, "ChildProcesses", NoProcesses)
    monkeypatch.setattr(plans, "BackgroundPlans", NoPlans)
    return lambda *words: CliRunner().invoke(gpu.gpu, ["quarter", "--out", str(tmp_path), *words])


def test_the_command_writes_records_and_a_page(quarter, tmp_path):
    done = quarter()
    assert done.exit_code == 0, done.output
    assert "compiled: 5 cases" in done.stderr
    assert {line["kind"] for line in read(tmp_path / "gpu.jsonl").records} == {
        "environment", "agreement", "kernels", "training_step", "sampling_step",
    }  # fmt: skip
    assert "## NVIDIA H200" in (tmp_path / "gpu.md").read_text()


def test_exit_code_3_means_that_cases_remain(quarter, monkeypatch):
    monkeypatch.setattr(NoProcess, "ask", lambda self, job, limit_s: {"outcome": "cut_off", "reason": "the end"})
    done = quarter()
    assert done.exit_code == gpu.UNFINISHED
    assert "run the command again to resume" in done.stderr


def test_a_missing_device_gives_one_message(quarter):
    done = quarter("--device", "cuda:7")
    assert done.exit_code == 1
    assert "finds no CUDA device" in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_the_command_first_names_missing_packages(quarter, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("einops", "numpy") else name)
    done = quarter()
    assert done.exit_code == 1
    assert "not installed: numpy, einops; pip install numpy einops" in done.stderr


def test_the_page_can_be_written_again(quarter, tmp_path):
    quarter()
    (tmp_path / "gpu.md").unlink()
    for place in (tmp_path, tmp_path / "gpu.jsonl"):
        done = CliRunner().invoke(gpu.gpu, ["page", str(place)])
        assert done.exit_code == 0, done.output
        assert (tmp_path / "gpu.md").exists()


def test_a_file_without_records_gives_one_message(tmp_path):
    (tmp_path / "other.jsonl").write_text("{}\n")
    done = CliRunner().invoke(gpu.gpu, ["page", str(tmp_path / "other.jsonl")])
    assert done.exit_code == 1
    assert "is not a file of records" in done.stderr


@pytest.mark.parametrize(
    ("name", "gib", "key"),
    [
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79.3, "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", 79.2, "h100"),
        ("NVIDIA H200", 139.8, "h200"),
        ("Somebody's 12", 12.0, "12.0GiB"),
    ],
)
def test_the_planner_finds_the_gpu_of_a_name_and_memory(name, gib, key):
    assert like(name, int(gib * 2**30)) == key


def test_the_command_imports_only_the_packages_that_it_needs():
    """A machine with a GPU and torch has no psutil, matplotlib, rich or av."""
    absent = ("psutil", "matplotlib", "rich", "av", "PIL")
    source = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        "import bench.gpu, bench.quarter.child, bench.quarter.page, bench.quarter.plans, bench.quarter.loop\n"
        "import bench.quarter.compare, bench.quarter.kernels, bench.quarter.steps\n"
        "from bench.quarter.selection import REHEARSAL, groups\n"
        "from bench.quarter.plans import plan_summary\n"
        "(case, *_) = groups({'attention': ['sdpa']}, REHEARSAL)[2].cases(set())\n"
        "assert plan_summary('24GiB', case.what['setup'])['fit'] == 'yes'\n"
        "answer = bench.quarter.steps.training_step(case.what, 'cpu', print, ())\n"
        "assert answer['outcome'] == 'ok', answer\n"
    )
    root = Path(gpu.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_rehearsal_measures_every_kind(tmp_path):
    root = Path(gpu.__file__).parent.parent
    words = ["-m", "bench.gpu", "quarter", "--device", "cpu", "--rehearse", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=root, env={**os.environ})
    assert done.returncode == 0, done.stderr
    lines = [line for line in read(tmp_path / "gpu.jsonl").records if line["kind"] != "environment"]
    assert {line["outcome"] for line in lines} == {"ok", "unsupported"}
    text = (tmp_path / "gpu.md").read_text()
    for title in ("Agreement with the reference", "Kernels", "A training step", "A sampling step"):
        assert f"### {title}" in text
