"""Records that were cut, edited or swapped: `zoo report` and `zoo compare` say what they left out, or refuse."""

import json
import math
import random

import pytest
from click.testing import CliRunner

from bench.sweep import results as runs
from bench.sweep.case import Case, expand
from bench.sweep.outcome import Outcome, Times
from bench.sweep.repetitions import measurements
from bench.sweep.runner import outcomes
from temporal_zoo._support.record import Session, read
from temporal_zoo.cli.main import zoo

HERE = {
    "id": "1234abcd",
    "machine": {"processor": "A processor", "usable_cores": 2, "memory_bytes": 2**34, "system": "Linux"},
    "devices": [], "software": {"torch": "2.13", "cuda": None}, "threads": {"torch": 2},
    "code": {"version": "0.1", "commit": "c" * 40, "dirty": False, "sources": "5"},
}  # fmt: skip
CASES = expand(layers="bimamba,flash", lengths="16,64,256", level="mixer", mode="train")


def measured(case, ms=None):
    ms = float(case.frames) if ms is None else ms
    return {"case": case.to_dict()} | Outcome("ok", time_ms=Times(ms, ms, ms, 9, 2, True), stored_bytes=8).to_dict()


@pytest.fixture
def record(tmp_path):
    """A good record; its first line is the environment, and a line for each case follows."""
    session = Session(tmp_path / "good" / "records.jsonl", HERE)
    for case in CASES:
        session.write("measurement", measured(case))
    return session.path


def changed(record, number, change):
    """A record beside the good one whose line `number` is what `change` makes of the line's values."""
    lines = record.read_text().splitlines()
    result = change(json.loads(lines[number]))
    lines[number] = result if isinstance(result, str) else json.dumps(result)
    path = record.parent.parent / "odd" / "records.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(filter(None, lines)) + "\n")
    return path


def typed(*words):
    done = CliRunner().invoke(zoo, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def put(place, value):
    """A change of the value at "time_ms.p50"."""

    def change(line):
        *names, last = place.split(".")
        inner = line
        for name in names:
            inner = inner[name]
        inner[last] = value
        return line

    return change


WRONG = [
    ("outcome", "excellent", "\"status\" cannot be 'excellent'"),
    ("outcome", ["ok"], "status"),
    ("time_ms.p50", 0, "cannot be percentiles"),
    ("time_ms.p50", "12", "p50"),
    ("time_ms.p50", math.nan, "p50"),
    ("time_ms.p50", 10**400, "p50"),
    ("time_ms.p10", 1e9, "cannot be percentiles"),
    ("time_ms.medians", [1, 0], "medians"),
    ("time_ms.each", [None], "each"),
    ("time_ms.rounds", 1.5, "rounds"),
    ("time_ms", [1, 2], "time_ms"),
    ("time_ms", {}, "a field is missing"),
    ("stored_bytes", -1, "stored_bytes"),
    ("stored_bytes", True, "stored_bytes"),
    ("memory_bytes", {"counted": "x", "before": 5, "peak": 3}, "below what was in use before"),
    ("backends", {"attention": "reference"}, "backends"),
    ("declared", ["T"], "declared"),
    ("case", None, 'no "case"'),
    ("case.frames", 0, "at least 1"),
    ("case.frames", 10**12, "at most"),
    ("case.level", "galaxy", "level"),
    ("case.preset", "tiny", "no preset"),
    ("case.of_tomorrow", 1, "has no option 'of_tomorrow'"),
    ("repetition", "first", "repetition"),
]


@pytest.mark.parametrize(("place", "value", "said"), WRONG, ids=[f"{place}={value!r:.20}" for place, value, _ in WRONG])
def test_a_measurement_that_cannot_be_is_left_out_and_named(record, place, value, said):
    path = changed(record, 3, put(place, value))
    run = runs.load(path)
    assert [result.case for result in run.results] == [case for case in CASES if case != CASES[2]]
    (reason,) = run.left_out
    assert reason.startswith("line 4: ")
    assert said in reason
    assert CASES[2] not in outcomes(read(path), HERE["id"])
    done = typed("compare", record, path, "--json")
    assert (done.exit_code, len(json.loads(done.stdout)["pairs"])) == (0, 5)
    assert f"Left out of {path}: {reason}." in done.stderr


def test_a_report_says_what_it_left_out_on_the_terminal_and_on_the_page(record):
    path = changed(record, 3, put("outcome", "excellent"))
    done = typed("report", path)
    assert done.exit_code == 0
    assert "line 4: " in done.stderr
    assert "line 4: " in (path.parent / "report.html").read_text()


def test_fields_of_tomorrow_beside_ours_are_no_fault(record):
    path = changed(record, 3, lambda line: line | {"of_tomorrow": 1, "time_ms": line["time_ms"] | {"p99": 3}})
    assert len(runs.load(path).results) == len(CASES)


@pytest.mark.parametrize("line", ["[" * 200_000, "\x00\x01", '{"schema": 1, "kind": "measurement"}', "{}", "7"])
def test_a_line_that_is_no_record_is_left_out(record, line, caplog):
    path = changed(record, 3, lambda _: line)
    run = runs.load(path)
    assert (len(run.results), run.left_out) == (5, ("line 4 is damaged",))
    assert "records.jsonl:4 is damaged; skipped it" in caplog.text


@pytest.mark.parametrize(
    "line", ["", '{"schema": 1, "kind": "environment", "id": "1234', '{"schema": 1, "kind": "note"}']
)
def test_without_the_line_of_its_environment_nothing_is_shown_as_if_it_were_known(record, line):
    path = changed(record, 0, lambda _: line)
    done = typed("report", path)
    assert done.exit_code == 2
    assert done.stderr.count("Error: ") == 1
    assert "the line of their environment is missing" in done.stderr or "damaged" in done.stderr


def test_measurements_of_a_lost_environment_are_not_mixed_with_others(record):
    path = changed(record, 0, lambda _: "")
    other = Session(path, HERE | {"id": "5678"})
    other.write("measurement", measured(CASES[0]))
    done = typed("report", path, "--json")
    assert {row["mixer"] for row in json.loads(done.stdout)} == {"bimamba"}
    assert "6 measurements, because the line of their environment is missing (1234abcd)" in done.stderr


@pytest.mark.parametrize("part", ["machine", "devices", "software", "threads", "code"])
@pytest.mark.parametrize("value", [None, "x", [], {}, [1]])
def test_what_an_environment_does_not_say_is_unknown(record, part, value):
    path = changed(record, 0, put(part, value))
    run = runs.load(path)
    told = f"{run.machine} {run.code} {run.busy}"
    assert ("unknown" in told) == (part != "devices")
    done = typed("compare", path, path)
    assert done.exit_code == (2 if part in ("machine", "threads") else 0), done.output


def test_unknown_is_not_the_same_machine_as_unknown(record):
    path = changed(record, 0, put("machine", {}))
    assert "device: unknown and unknown" in typed("compare", path, path).stderr
    assert typed("compare", path, path, "--other-machine").exit_code == 0


def test_compiler_and_arithmetic_that_differ_are_told_and_those_of_old_records_are_unknown(record):
    path = changed(
        record, 0, lambda line: line | {"compiler": {"version": "c++ 12"}, "arithmetic": {"tf32_cudnn": False}}
    )
    told = " ".join(typed("compare", record, path).stdout.split())
    assert "compiler: first unknown; second version c++ 12" in told
    assert "arithmetic: first unknown; second tf32_cudnn False" in told
    assert "compiler: " not in typed("compare", path, path).stdout


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\xff\xfe\x00junk\n" * 3, b"[1]\n", b'{"schema": 99, "kind": "x"}\n']
)
def test_a_file_that_is_no_record_gets_one_message(tmp_path, content):
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    for words in (("report", path), ("compare", path, path)):
        done = typed(*words)
        assert (done.exit_code, done.stderr.count("Error: ")) == (2, 1)
        assert str(path) in done.stderr


def test_a_folder_in_the_place_of_a_record_gets_one_message(tmp_path):
    (tmp_path / "records.jsonl").mkdir()
    done = typed("report", tmp_path)
    assert (done.exit_code, done.stderr.count("Error: ")) == (2, 1)


def test_a_case_whose_first_repetition_is_lost_is_measured_again(record):
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    second = Session(record, HERE)
    second.write("measurement", measured(CASES[0]) | {"repetition": 2})
    assert len(outcomes(read(record), HERE["id"])[CASES[0]]) == 2
    path = changed(record, 1, lambda line: "{}")
    assert CASES[0] not in outcomes(read(path), HERE["id"])
    assert len(lines) == 1 + len(CASES)


def test_cases_of_a_level_have_its_fields_and_no_others():
    good = CASES[0].to_dict()
    for changes in ({"rows": None}, {"dim": None}, {"clips": 1}, {"level": "model"}):
        with pytest.raises(ValueError, match="a case of the level"):
            Case.from_dict(good | changes)


ODD = [None, 0, -1, 1, 1e308, 5e-324, math.nan, math.inf, 10**400, True, "", "$a_", "<b>", [], [[]], {}, {"a": 1}, "ok"]


def mutated(rng, value):
    """A value with one part lost, renamed or replaced by another."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name, kind = rng.choice(list(value)), rng.random()
        if kind < 0.2:
            return {key: each for key, each in value.items() if key != name}
        return value | ({"of_tomorrow": rng.choice(ODD)} if kind < 0.3 else {name: mutated(rng, value[name])})
    return rng.choice(ODD)


def test_whatever_is_wrong_with_a_record_ends_in_a_report_or_a_message(record, monkeypatch):
    monkeypatch.setattr("bench.analysis.plot.save", lambda panels, path: None)
    monkeypatch.setattr("bench.analysis.plot.svg", lambda panels: "<svg/>")
    rng, seen = random.Random(0), set()
    for _ in range(60):
        number = rng.choice([0, *range(1, 7)])
        path = changed(record, number, lambda line: mutated(rng, line))
        seen |= {typed("report", path).exit_code, typed("compare", record, path).exit_code}
        usable, wrong = measurements(read(path))
        assert len(usable) + len(wrong) >= len(CASES) - 1
    assert seen == {0, 2}
