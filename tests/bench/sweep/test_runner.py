"""A sweep that is killed at any moment and started again ends with the same set of records, none twice."""

import subprocess
import sys
import time
from collections import Counter

import pytest

from bench.sweep import subprocess as apart
from bench.sweep.case import Case, expand
from bench.sweep.outcome import Outcome, Times
from bench.sweep.runner import Sweep, Terms
from temporal_zoo._support.record import read

CASES = expand(layers="identity,bimamba", lengths="4,8,16", level="mixer")
HERE = {"id": "here", "code": {"sources": "ours"}}

# Measures nothing, records everything, slowly enough to be killed in between.
KILLED = """
import sys, time
sys.path[:] = {path!r}
from pathlib import Path
from bench.sweep import load, subprocess
from bench.sweep.outcome import Outcome
from bench.sweep.runner import Sweep, Terms
from tests_of_sweeps import CASES, HERE
load.before = lambda device: {{}}
subprocess.examine = lambda cases, expected=None: (HERE, "here")
subprocess.Workers.measure = lambda self, case, **how: time.sleep(0.05) or Outcome("ok")
print("begun", flush=True)
list(Sweep(CASES, Path({record!r}), Terms(repetitions=2)).run())
"""


@pytest.fixture
def measured(monkeypatch):
    """The cases that were measured, in order; each takes a millisecond by a clock of ours, and then one more."""
    found = []

    def measure(self, case, *, clock_only, **how):
        found.append(case)
        ms = found.count(case)
        return Outcome("ok", time_ms=Times(ms, ms, ms, 5, 2, True), stored_bytes=None if clock_only else 7)

    monkeypatch.setattr(apart, "examine", lambda cases, expected=None: (HERE, "here"))
    monkeypatch.setattr(apart.Workers, "measure", measure)
    monkeypatch.setattr("bench.sweep.load._LISTEN_S", 0.001)
    return found


def recorded(path):
    return Counter(Case.from_dict(m["case"]) for m in read(path).of("measurement"))


def test_what_is_recorded_is_not_measured_again(measured, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Sweep(CASES[:5], record, Terms()).run())
    sweep = Sweep(CASES, record, Terms())
    assert sweep.waiting == [(1, case) for case in CASES[5:]]
    list(sweep.run())
    assert measured == CASES
    assert [result.case for result in sweep.results] == CASES
    assert recorded(record) == Counter(CASES)


@pytest.mark.parametrize("kept", [0, 1, 200, 900, 1500, 2500, 10**6])
def test_a_record_that_was_cut_anywhere_is_completed(measured, tmp_path, kept):
    record = tmp_path / "records.jsonl"
    terms = Terms(repetitions=2)
    list(Sweep(CASES, record, terms).run())
    record.write_bytes(record.read_bytes()[:kept])
    list(Sweep(CASES, record, terms).run())
    assert recorded(record) == Counter(CASES * 2)


def test_a_sweep_that_is_really_killed(tmp_path):
    (tmp_path / "tests_of_sweeps.py").write_text(
        "from bench.sweep.case import expand\n"
        f"CASES = expand(layers='identity,bimamba', lengths='4,8,16', level='mixer')\nHERE = {HERE!r}\n"
    )
    record = tmp_path / "records.jsonl"
    source = KILLED.format(path=[str(tmp_path), *sys.path], record=str(record))
    for seconds in (0.02, 0.12, 0.2, None):
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            if seconds is not None:
                time.sleep(seconds)
                process.kill()
        assert seconds is not None or process.returncode == 0
    assert recorded(record) == Counter(CASES * 2)


def test_another_environment_is_measured_of_its_own(measured, monkeypatch, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Sweep(CASES[:2], record, Terms()).run())
    monkeypatch.setattr(apart, "examine", lambda cases, expected=None: (HERE | {"id": "there"}, "there"))
    list(Sweep(CASES[:2], record, Terms()).run())
    assert measured == CASES[:2] * 2


def test_again_measures_all_of_them_once_more(measured, tmp_path):
    for again in (False, True):
        list(Sweep(CASES[:2], tmp_path / "records.jsonl", Terms(again=again)).run())
    assert measured == CASES[:2] * 2


def test_no_case_begins_that_might_not_end_in_time(measured, monkeypatch, tmp_path):
    clock = iter(range(100, 10_000, 100))  # seconds
    monkeypatch.setattr("bench.sweep.runner.time.monotonic", lambda: next(clock))
    record, terms = tmp_path / "records.jsonl", Terms(limit_s=60, until=500)
    sweep = Sweep(CASES, record, terms)
    # At 100, 200, 300 and 400 s of 500 one may begin that has 60 and its grace; later none.
    assert len(list(sweep.run())) == 4
    assert [case for _, case in sweep.waiting] == CASES[4:]


def test_a_profile_that_is_missing_is_made(measured, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Sweep(CASES[:1], record, Terms()).run())
    assert Sweep(CASES[:1], record, Terms(traces=tmp_path / "traces")).waiting == [(1, CASES[0])]


def test_repetitions_come_in_turns_and_later_ones_take_the_time_alone(measured, tmp_path):
    sweep = Sweep(CASES[:2], tmp_path / "records.jsonl", Terms(repetitions=3))
    assert [repetition for repetition, _ in sweep.run()] == [1, 1, 2, 2, 3, 3]
    assert measured == CASES[:2] * 3
    found = sweep.results[0].outcome
    assert found.time_ms.medians == (1, 2, 3)
    assert found.time_ms.p50 == pytest.approx(6 ** (1 / 3))
    assert found.stored_bytes == 7


def test_more_repetitions_add_to_those_that_are_recorded(measured, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Sweep(CASES[:2], record, Terms(repetitions=2)).run())
    more = Sweep(CASES[:2], record, Terms(repetitions=3))
    assert more.waiting == [(3, CASES[0]), (3, CASES[1])]
    list(more.run())
    assert len(measured) == 6
    assert Sweep(CASES[:2], record, Terms(repetitions=1)).waiting == []


def test_again_forgets_all_repetitions_of_before(measured, tmp_path):
    record = tmp_path / "records.jsonl"
    list(Sweep(CASES[:1], record, Terms(repetitions=3)).run())
    list(Sweep(CASES[:1], record, Terms(repetitions=2, again=True)).run())
    (result,) = Sweep(CASES[:1], record, Terms()).results
    assert result.outcome.time_ms.medians == (4, 5)


def test_a_case_that_fails_is_not_repeated_and_a_late_failure_is_the_outcome(measured, monkeypatch, tmp_path):
    ends = iter([Outcome("ok", time_ms=Times(1, 1, 1, 5, 2, True)), Outcome("crashed", "the process crashed")])
    monkeypatch.setattr(apart.Workers, "measure", lambda self, case, **how: next(ends))
    sweep = Sweep(CASES[:1], tmp_path / "records.jsonl", Terms(repetitions=4))
    assert [result.outcome.status for _, result in sweep.run()] == ["ok", "crashed"]
    assert sweep.waiting == []
    assert sweep.results[0].outcome.reason == "in process 2: the process crashed"
