"""`zoo plan`: tables, files, messages."""

import contextlib
import json
import types

import pytest
from click.testing import CliRunner

from temporal_zoo.cli.main import zoo


@pytest.fixture
def no_processes(monkeypatch):
    """Commands plan in this process; another test covers the subprocesses."""
    monkeypatch.setattr("bench.plan.pool.planners", lambda: contextlib.nullcontext(types.SimpleNamespace(map=map)))


def run_plan(*options, code=0):
    result = CliRunner().invoke(zoo, ["plan", "--preset", "tiny", "--size", "16", *options])
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_plans_tables_a_plot_and_a_file(tmp_path, no_processes):
    options = ["--layers", "attn,bimamba", "--lengths", "8,32", "--checkpointing", "none", "--gpu", "2GiB"]
    output = run_plan(*options, "--out", str(tmp_path))
    assert "fits up to" in output
    plans = json.loads((tmp_path / "plan.json").read_text())
    assert [plan["setup"]["frames"] for plan in plans["plans"]] == [8, 32, 8, 32]
    attention, mamba = (each["frames"] for each in plans["longest"])
    assert 32 < attention < mamba
    assert (tmp_path / "plan.png").stat().st_size > 10_000


def test_a_plan_that_does_not_fit_says_how_much_it_needs(tmp_path, no_processes):
    output = run_plan(
        "--layers", "attn", "--lengths", "72000", "--checkpointing", "none", "--out", str(tmp_path), code=1
    )
    (line,) = (line for line in output.splitlines() if "72,000 frames need" in line)
    assert "GiB" in line
    assert "up to" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpointing", "all"], "unknown checkpointing 'all'; choose from none, mixers, blocks"),
        (["--gpu", "a101"], "unknown device 'a101'"),
        (["--gpu", "9" * 400 + "GiB"], "unknown device"),
        (["--lengths", "1000000000000"], "1000000000000 frames are too many"),
        (["--clips", "1000000000000"], "are 256,000,000,000,000 pixels; the limit is"),
        (["--size", "100000000"], "pixels; the limit is"),
        (["--layers", "atn"], "attn"),
        (["--preset", "huge"], "no preset"),
    ],
)
def test_bad_options_give_one_message(options, message, no_processes):
    assert message in run_plan("--lengths", "8", *options, code=2)
