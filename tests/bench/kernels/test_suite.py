"""`zoo bench --suite kernels` on tiny sizes: the check before timing, the record, the page."""

import json

import pytest
import torch
from click.testing import CliRunner

from bench.kernels import report, subjects, suite
from temporal_zoo._support.record import read
from temporal_zoo.cli.main import zoo
from temporal_zoo.ops import ops
from temporal_zoo.ops.agreement import LIMITS

TINY = subjects.SubjectSize(rows=2, frames=5, width=16, state=4)


@pytest.fixture
def quick(monkeypatch, without_packages):
    """Options for one turn of one step with toy sizes and without subprocesses."""
    monkeypatch.setattr(suite, "TURN_S", 0.0)
    monkeypatch.setattr(suite, "WITH_MEMORY", ())

    def options(frames=(3,), repetitions=1, folder=None, **changes):
        defaults = {"total_frames": 6, "width": 16, "state": 4, "long": None}
        return suite.SuiteOptions(frames, repetitions, folder, **(defaults | changes))

    return options


def measure(options, tmp_path):
    return suite.run(options, tmp_path / "kernels.jsonl", "a command", lambda line: None)


def test_a_wrong_backend_is_not_timed(quick, tmp_path, monkeypatch):
    backend = ops()["causal_conv"]._modules["torch"]
    run = backend.run
    monkeypatch.setattr(backend, "run", lambda *args, **kwargs: tuple(1.001 * y for y in run(*args, **kwargs)))
    rows = measure(quick(subjects=("causal_conv",)), tmp_path)
    (row,) = [row for row in rows if row["contender"] == "torch"]
    assert row["outcome"] == "disagrees"
    assert "seconds" not in row
    assert row["error"] == pytest.approx(1e-3, rel=0.2)
    assert {row["mode"] for row in rows if row["contender"] == "reference"} == {"forward", "train"}
    (cells,) = [row for row in report.tables(rows)[0].rows if row[1] == "torch"]
    assert "disagrees, not timed: off by 1.0e-03" in cells[-1]


def test_a_backend_with_wrong_gradients_only_is_not_timed():
    def run(inputs):
        q, k, v = (inputs[name] for name in "qkv")
        return subjects.attention(q, k.detach() + 0 * k, v, backend="reference")

    wrong = subjects.Implementation("wrong", "plain", "attention", run)
    assert suite.gate(wrong, TINY)["outcome"] == "disagrees"


def test_a_backend_that_raises_or_gives_nan_is_a_row():
    def broken(inputs):
        raise ZeroDivisionError("by design")

    found = suite.gate(subjects.Implementation("broken", "plain", "attention", broken), TINY)
    assert (found["outcome"], found["reason"]) == ("failed", "ZeroDivisionError: by design")
    blank = subjects.Implementation("blank", "plain", "attention", lambda inputs: sum(inputs.values()) * torch.nan)
    assert suite.gate(blank, TINY) | {"reason": ""} == {"outcome": "disagrees", "reason": "", "error": None}


def test_steps_take_turns_in_rounds_and_slow_steps_have_fewer_turns(monkeypatch):
    now, order = [0.0], []

    def step(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds

        return run

    costs = {"fast": 0.02, "slow": 3.0, "slowest": 11.0}
    steps = {name: step(name, seconds) for name, seconds in costs.items()}
    steps["broken"] = lambda: [][0]
    taken, failures = suite.interleaved(steps, 5, lambda: now[0])
    assert failures == {"broken": "IndexError: list index out of range"}
    assert {name: len(seconds) for name, seconds in taken.items()} == {"fast": 5, "slow": 3, "slowest": 1}
    assert all(seconds == pytest.approx([costs[name]] * len(seconds)) for name, seconds in taken.items())
    assert order[:3] == list(costs)
    assert order[3:11] == ["fast"] * 3 + ["slow"] + ["fast"] * 3 + ["slow"]


def test_memory_is_measured_in_a_fresh_process(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "WITH_MEMORY", ("torch", "no such backend"))
    rows = measure(quick(subjects=("selective_scan",), total_frames=512, frames=(64,), width=64), tmp_path)
    (row,) = [row for row in rows if row["measured"] == "memory"]
    assert row["outcome"] == "ok"
    # At least the output and the gradients of its five activations.
    assert row["peak_bytes"] > 6 * 512 * 64 * 4
    assert any("peak memory" in table.title for table in report.tables(rows))


def test_the_command_writes_tables_a_record_a_plot_and_a_page(quick, tmp_path, monkeypatch):
    options = quick(frames=(3, 6), repetitions=2)
    monkeypatch.setattr(suite, "SuiteOptions", lambda *_: options)
    out = tmp_path / "results"
    done = CliRunner().invoke(zoo, ["bench", "--suite", "kernels", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "Implementations" in done.stdout
    assert "pip install --upgrade mambapy" in " ".join(done.stdout.split())
    reading = read(out / "kernels.jsonl")
    head, rows = report.last_run(reading)
    assert head["plan"]["repetitions"] == 2
    timed = [row for row in rows if row["measured"] == "time" and row["outcome"] == "ok"]
    assert {row["subject"] for row in timed} == set(subjects.SUBJECTS)
    assert all(len(row["seconds"]) == 2 and row["error"] < LIMITS[torch.float32].tolerance for row in timed)
    assert (out / "kernels.png").stat().st_size
    page = (out / "kernels.md").read_text()
    assert page == report.page(reading, "kernels.jsonl", "kernels.png")
    assert head["command"] in page
    assert "[kernels.jsonl](kernels.jsonl)" in page
    assert "restated" in page


def test_a_dry_run_lists_the_implementations(without_packages, tmp_path):
    done = CliRunner().invoke(zoo, ["bench", "--suite", "kernels", "--out", str(tmp_path / "none"), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "mamba.py pscan (missing)" in done.stdout
    assert "gated selective scan, two directions, 7200 frames: cpu, torch" in done.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--suite", "kernels", "--layers", "attn"), "does not accept --layers"),
        (("--peers", "."), "--peers is for `--suite kernels` only"),
        (("--suite", "kernel"), "'kernel' is not one of 'quick', 'paper', 'scaling', 'kernels'"),
        (("--suite", "kernels", "--repetitions", "0"), "--repetitions"),
        (("--suite", "kernels", "--peers", "nowhere"), "nowhere"),
        (("--suite", "kernels", "--lengths", "0"), "0 frames cannot be measured"),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_two(tmp_path, arguments, said):
    done = CliRunner().invoke(zoo, ["bench", *arguments, "--out", str(tmp_path / "none")])
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert not (tmp_path / "none").exists()


def test_results_as_json(quick, tmp_path, monkeypatch):
    options = quick(subjects=("attention",))
    monkeypatch.setattr(suite, "SuiteOptions", lambda *_: options)
    done = CliRunner().invoke(zoo, ["bench", "--suite", "kernels", "--json", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {row["subject"] for row in json.loads(done.stdout)} == {"attention"}
