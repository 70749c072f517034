"""The parts of `nox -s gpu`, without a GPU: what they measure, and that a call that was cut off goes on."""

import pytest
from click.testing import CliRunner

from bench import apart, gpu
from bench.outcome import Outcome, Times
from temporal_zoo.ops import ops
from temporal_zoo.record import read


@pytest.fixture
def told(monkeypatch):
    """Cases and commands that would have run; cases take a minute each by a clock of ours, commands no time."""
    found, now = [], [0.0]

    def measure(self, case, **how):
        found.append(case)
        now[0] += 60
        return Outcome("ok", time_ms=Times(1, 1, 1, 5, 2, True))

    def run(words, seconds):
        found.append(words)
        return "ok", "3 passed"

    here = {"id": "here", "code": {"sources": "ours"}}
    monkeypatch.setattr(apart, "examine", lambda cases, expected=None: (here, "a GPU"))
    monkeypatch.setattr(apart.Workers, "measure", measure)
    monkeypatch.setattr(gpu, "_run", run)
    monkeypatch.setattr("bench.surroundings.before", lambda device: {})
    monkeypatch.setattr("bench.surroundings.device_state", lambda device: None)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return found


def call(out, *words):
    return CliRunner().invoke(gpu.gpu, [*words, "--out", str(out)])


def test_every_body_of_every_op_that_may_run_on_a_gpu():
    pinned = {pin for case in gpu.bodies("cuda", "bfloat16") for pin in case.backends}
    assert {pin.partition("=")[0] for pin in pinned} == set(gpu._USERS)
    assert pinned == {f"{op}={body}" for op in gpu._USERS for body in ops()[op].bodies if body != "cpu"}
    assert set(gpu._USERS) <= set(ops())


def test_a_part_takes_eight_minutes_and_goes_on(told, tmp_path):
    cases, calls = gpu.bodies("cuda", "bfloat16"), 0
    while (done := call(tmp_path, "kernels")).exit_code == gpu.UNFINISHED:
        assert "goes on from here" in done.stderr
        calls += 1
        assert len(told) <= 7 * calls  # of eight minutes the last cannot hold a case that might take its limit
    assert done.exit_code == 0, done.output
    assert told == cases * 3
    assert len(read(tmp_path / "records.jsonl").of("measurement")) == 3 * len(cases)


def test_parity_runs_every_file_once(told, tmp_path):
    assert call(tmp_path, "parity").exit_code == 0
    files = [words[-1] for words in told]
    assert "tests/temporal_zoo/ops/test_selective_scan_triton.py" in files
    assert len(set(files)) == len(files)
    assert {line["outcome"] for line in read(tmp_path / "records.jsonl").of("parity")} == {"ok"}
    call(tmp_path, "parity")
    assert len(told) == len(files)


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
def test_the_planner_is_told_which_gpu_it_is(name, gib, key):
    assert gpu.known_as(name=name, memory_bytes=int(gib * 2**30), capability="9.0") == key


def test_another_gpu_than_expected_stops_it(monkeypatch, tmp_path):
    def refuse(cases, expected=None):
        raise apart.BenchError(f"{expected!r} was expected")

    monkeypatch.setattr(apart, "examine", refuse)
    done = call(tmp_path, "scaling", "--expect-device", "A100")
    assert done.exit_code == 1
    assert "'A100' was expected" in done.stderr
