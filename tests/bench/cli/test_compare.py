"""`zoo compare`: ratios of two records with their intervals, and refusals."""

import json
import math

import pytest
from click.testing import CliRunner

from temporal_zoo.cli.main import zoo


def compare(*arguments):
    return CliRunner().invoke(zoo, ["compare", *map(str, arguments)])


@pytest.fixture
def first(tmp_path, results_of, write_record, linear_and_quadratic):
    return write_record(tmp_path / "first", results_of(linear_and_quadratic))


def test_ratios_are_paired_and_have_intervals(first, tmp_path, results_of, write_record, timed):
    faster = {
        "bimamba": lambda n: timed(2.0 * n, stored=500 * n),
        "flash": lambda n: timed(n * n / 32 * 1.01, stored=2000 * n),
        "identity": lambda n: timed(1.0),
    }
    second = write_record(tmp_path / "second", results_of(faster))
    values = json.loads(compare(first, second, "--json").stdout)
    pairs = {(p["case"]["mixer"], p["case"]["frames"]): p for p in values["pairs"]}
    assert {mixer for mixer, _ in pairs} == {"bimamba", "flash"}
    assert pairs["bimamba", 64]["time"]["value"] == pytest.approx(0.5)
    # Both times have a spread of 2 %, from 0.98 to 1.02; squares of relative errors add up.
    error = math.exp(math.hypot(math.log(1.02), math.log(0.98)))
    assert pairs["bimamba", 64]["time"]["high"] == pytest.approx(0.5 * error)
    assert pairs["bimamba", 64]["time"]["low"] == pytest.approx(0.5 / error)
    assert pairs["bimamba", 64]["stored"] == pytest.approx(0.5)
    mean = values["time_geometric_mean"]
    assert mean["value"] == pytest.approx((0.5 * 1.01) ** 0.5)
    assert mean["low"] < mean["value"] < mean["high"]
    lines = compare(first, second).stdout.splitlines()
    verdicts = {
        line.split()[0]: line.split()[-1] for line in lines if line.strip().startswith(("bimamba 64", "flash 64"))
    }
    assert verdicts["bimamba"] == "faster"
    assert verdicts["flash"] not in ("faster", "slower")


def test_different_machines_are_refused_by_default(first, tmp_path, results_of, write_record, linear_and_quadratic):
    machine = {"processor": "Another", "usable_cores": 2, "memory_bytes": 2**34, "system": "Linux"}
    second = write_record(tmp_path / "second", results_of(linear_and_quadratic), machine=machine)
    done = compare(first, second)
    assert done.exit_code == 2
    assert "A processor and Another" in done.stderr
    assert compare(first, second, "--other-machine").exit_code == 0


def test_records_that_cannot_be_compared_give_one_message(first, tmp_path, results_of, write_record, timed):
    (tmp_path / "empty").mkdir()
    done = compare(first, tmp_path / "empty")
    assert done.exit_code == 2
    assert "has no records.jsonl" in done.stderr
    other = write_record(tmp_path / "second", results_of({"identity": lambda n: timed(1.0)}))
    assert "no case in common" in compare(first, other).stderr
