"""A sweep that is killed at any moment and resumed ends with the same set of records, without duplicates."""

import subprocess
import sys
import time
from collections import Counter

import pytest

import bench.sweep.subprocess
from bench.sweep.case import Case, expand
from bench.sweep.outcome import Outcome, Times
from bench.sweep.runner import Runner, RunnerOptions
from temporal_zoo._support.record import read

CASES = expand(layers="identity,bimamba", lengths="4,8,16", level="mixer")
HERE = {"id": "here", "code": {"sources": "ours"}}

# A sweep that only writes records, slowly enough for the test to kill it.
SLOW_SWEEP = """
import sys, time
sys.path[:] = {path!r}
from pathlib import Path
from bench.sweep import machine_load, subprocess
from bench.sweep.outcome import Outcome
from bench.sweep.runner import Runner, RunnerOptions
from tests_of_sweeps import CASES, HERE
machine_load.before_case = lambda device: {{}}
subprocess.examine = lambda cases, expected=None: (HERE, "here")
subprocess.Workers.measure = lambda self, case, **how: time.sleep(0.05) or Outcome("ok")
print("begun", flush=True)
list(Runner(CASES, Path({record!r}), RunnerOptions(repetitions=2)).run())
"""


@pytest.fixture
def measured(monkeypatch):
    """The cases in the order of their measurements; a case takes 1 ms, then 2 ms, and so on."""
    found = []

    def measure(self, case, *, time_only, **how):
        found.append(case)
        ms = found.count(case)
        return Outcome("ok", time_ms=Times(ms, ms, ms, 5, 2, True), stored_bytes=None if time_only else 7)

    monkeypatch.setattr(bench.sweep.subprocess, "examine", lambda cases, expected=None: (HERE, "here"))
    monkeypatch.setattr(bench.sweep.subprocess.Workers, "measure", measure)
    monkeypatch.setattr("bench.sweep.machine_load._SAMPLE_S", 0.001)
    return found


def recorded(path):
    return Counter(Case.from_dict(m["case"]) for m in read(path).of("measurement"))


def test_recorded_cases_are_not_measured_again(measured, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Runner(CASES[:5], record, RunnerOptions()).run())
    runner = Runner(CASES, record, RunnerOptions())
    assert runner.waiting == [(1, case) for case in CASES[5:]]
    list(runner.run())
    assert measured == CASES
    assert [result.case for result in runner.results] == CASES
    assert recorded(record) == Counter(CASES)


@pytest.mark.parametrize("size", [0, 1, 200, 900, 1500, 2500, 10**6])
def test_a_record_that_is_cut_at_any_byte_is_completed(measured, tmp_path, size):
    record = tmp_path / "records.jsonl"
    options = RunnerOptions(repetitions=2)
    list(Runner(CASES, record, options).run())
    record.write_bytes(record.read_bytes()[:size])
    list(Runner(CASES, record, options).run())
    assert recorded(record) == Counter(CASES * 2)


def test_a_killed_process_can_be_resumed(tmp_path):
    (tmp_path / "tests_of_sweeps.py").write_text(
        "from bench.sweep.case import expand\n"
        f"CASES = expand(layers='identity,bimamba', lengths='4,8,16', level='mixer')\nHERE = {HERE!r}\n"
    )
    record = tmp_path / "records.jsonl"
    source = SLOW_SWEEP.format(path=[str(tmp_path), *sys.path], record=str(record))
    for seconds in (0.02, 0.12, 0.2, None):
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            if seconds is not None:
                time.sleep(seconds)
                process.kill()
        assert seconds is not None or process.returncode == 0
    assert recorded(record) == Counter(CASES * 2)


def test_another_environment_is_measured_separately(measured, monkeypatch, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Runner(CASES[:2], record, RunnerOptions()).run())
    monkeypatch.setattr(bench.sweep.subprocess, "examine", lambda *_: (HERE | {"id": "there"}, "there"))
    list(Runner(CASES[:2], record, RunnerOptions()).run())
    assert measured == CASES[:2] * 2


def test_again_repeats_all_cases(measured, tmp_path):
    for again in (False, True):
        list(Runner(CASES[:2], tmp_path / "records.jsonl", RunnerOptions(again=again)).run())
    assert measured == CASES[:2] * 2


def test_no_case_starts_that_could_exceed_the_time_limit(measured, monkeypatch, tmp_path):
    clock = iter(range(100, 10_000, 100))  # seconds
    monkeypatch.setattr("bench.sweep.runner.time.monotonic", lambda: next(clock))
    record, options = tmp_path / "records.jsonl", RunnerOptions(limit_s=60, until=500)
    runner = Runner(CASES, record, options)
    # A case needs 60 s and the grace period: it can start at 100, 200, 300 and 400 s of 500 s, and not later.
    assert len(list(runner.run())) == 4
    assert [case for _, case in runner.waiting] == CASES[4:]


def test_a_case_without_its_profile_is_measured_again(measured, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Runner(CASES[:1], record, RunnerOptions()).run())
    assert Runner(CASES[:1], record, RunnerOptions(traces=tmp_path / "traces")).waiting == [(1, CASES[0])]


def test_repetitions_alternate_between_cases_and_later_ones_measure_only_time(measured, tmp_path):
    runner = Runner(CASES[:2], tmp_path / "records.jsonl", RunnerOptions(repetitions=3))
    assert [repetition for repetition, _ in runner.run()] == [1, 1, 2, 2, 3, 3]
    assert measured == CASES[:2] * 3
    found = runner.results[0].outcome
    assert found.time_ms.medians == (1, 2, 3)
    assert found.time_ms.p50 == pytest.approx(6 ** (1 / 3))
    assert found.stored_bytes == 7


def test_more_repetitions_add_to_recorded_ones(measured, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Runner(CASES[:2], record, RunnerOptions(repetitions=2)).run())
    more = Runner(CASES[:2], record, RunnerOptions(repetitions=3))
    assert more.waiting == [(3, CASES[0]), (3, CASES[1])]
    list(more.run())
    assert len(measured) == 6
    assert Runner(CASES[:2], record, RunnerOptions(repetitions=1)).waiting == []


def test_again_replaces_all_earlier_repetitions(measured, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Runner(CASES[:1], record, RunnerOptions(repetitions=3)).run())
    list(Runner(CASES[:1], record, RunnerOptions(repetitions=2, again=True)).run())
    (result,) = Runner(CASES[:1], record, RunnerOptions()).results
    assert result.outcome.time_ms.medians == (4, 5)


def test_a_failed_case_is_not_repeated_and_a_late_failure_is_the_outcome(measured, monkeypatch, tmp_path):
    ends = iter([Outcome("ok", time_ms=Times(1, 1, 1, 5, 2, True)), Outcome("crashed", "the process crashed")])
    monkeypatch.setattr(bench.sweep.subprocess.Workers, "measure", lambda self, case, **how: next(ends))
    runner = Runner(CASES[:1], tmp_path / "records.jsonl", RunnerOptions(repetitions=4))
    assert [result.outcome.status for _, result in runner.run()] == ["ok", "crashed"]
    assert runner.waiting == []
    assert runner.results[0].outcome.reason == "in process 2: the process crashed"
