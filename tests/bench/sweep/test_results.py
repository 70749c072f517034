"""Records that were cut, edited or exchanged: `zoo report` and `zoo compare` name what they leave out, or refuse.

Records of older versions can be read.
"""

import json
import math
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.sweep.case import Case, expand
from bench.sweep.results import CaseResult, complete_cases, load, measurements
from temporal_zoo._support.record import read
from temporal_zoo.cli.main import zoo

ID = "1234abcd"  # of the environment of `write_record`
CASES = expand(layers="bimamba,flash", lengths="16,64,256", level="mixer", mode="train")


@pytest.fixture
def record(tmp_path, write_record, timed):
    """A good record: a line for the environment, then a line for each case."""
    results = [CaseResult(case, timed(float(case.frames), stored=8)) for case in CASES]
    return write_record(tmp_path / "good", results) / "records.jsonl"


def changed(record, number, change):
    """A copy of the record in which `change` has changed the values of line `number`."""
    lines = record.read_text().splitlines()
    result = change(json.loads(lines[number]))
    lines[number] = result if isinstance(result, str) else json.dumps(result)
    path = record.parent.parent / "odd" / "records.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(filter(None, lines)) + "\n")
    return path


def zoo_command(*words):
    done = CliRunner().invoke(zoo, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def put(path, value):
    """A function that replaces the value at a path such as "time_ms.p50"."""

    def change(line):
        *names, last = path.split(".")
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
    ("memory_bytes", {"counted": "x", "before": 5, "peak": 3}, "below the memory in use before"),
    ("backends", {"attention": "reference"}, "backends"),
    ("declared", ["T"], "declared"),
    ("case", None, 'no "case"'),
    ("case.frames", 0, "at least 1"),
    ("case.frames", 10**12, "at most"),
    ("case.level", "galaxy", "level"),
    ("case.preset", "tiny", "without preset"),
    ("case.of_a_later_version", 1, "has no option 'of_a_later_version'"),
    ("repetition", "first", "repetition"),
]


@pytest.mark.parametrize(
    ("field", "value", "message"), WRONG, ids=[f"{field}={value!r:.20}" for field, value, _ in WRONG]
)
def test_an_impossible_measurement_is_left_out_with_its_reason(record, field, value, message):
    path = changed(record, 3, put(field, value))
    record_read = load(path)
    assert [result.case for result in record_read.results] == [case for case in CASES if case != CASES[2]]
    (reason,) = record_read.left_out
    assert reason.startswith("line 4: ")
    assert message in reason
    assert CASES[2] not in complete_cases(read(path), ID)
    done = zoo_command("compare", record, path, "--json")
    assert (done.exit_code, len(json.loads(done.stdout)["pairs"])) == (0, 5)
    assert f"Left out of {path}: {reason}." in done.stderr


def test_a_report_names_left_out_lines_on_the_terminal_and_on_the_page(record):
    path = changed(record, 3, put("outcome", "excellent"))
    done = zoo_command("report", path)
    assert done.exit_code == 0
    assert "line 4: " in done.stderr
    assert "line 4: " in (path.parent / "report.html").read_text()


def test_unknown_fields_are_ignored(record):
    path = changed(record, 3, lambda line: line | {"of_a_later_version": 1, "time_ms": line["time_ms"] | {"p99": 3}})
    assert len(load(path).results) == len(CASES)


@pytest.mark.parametrize("line", ["[" * 200_000, "\x00\x01", '{"schema": 1, "kind": "measurement"}', "{}", "7"])
def test_a_damaged_line_is_left_out(record, line, caplog):
    path = changed(record, 3, lambda _: line)
    found = load(path)
    assert (len(found.results), found.left_out) == (5, ("line 4 is damaged",))
    assert "records.jsonl:4 is damaged; skipped it" in caplog.text


@pytest.mark.parametrize(
    "line", ["", '{"schema": 1, "kind": "environment", "id": "1234', '{"schema": 1, "kind": "note"}']
)
def test_measurements_without_their_environment_are_refused(record, line):
    path = changed(record, 0, lambda _: line)
    done = zoo_command("report", path)
    assert done.exit_code == 2
    assert done.stderr.count("Error: ") == 1
    assert "the line of their environment is missing" in done.stderr or "damaged" in done.stderr


def test_measurements_of_a_missing_environment_are_not_mixed_with_others(record, write_record, timed):
    path = changed(record, 0, lambda _: "")
    write_record(path.parent, [CaseResult(CASES[0], timed(16.0))], id="5678")
    done = zoo_command("report", path, "--json")
    assert {row["mixer"] for row in json.loads(done.stdout)} == {"bimamba"}
    assert "6 measurements, because the line of their environment is missing (1234abcd)" in done.stderr


@pytest.mark.parametrize("part", ["machine", "devices", "software", "threads", "code"])
@pytest.mark.parametrize("value", [None, "x", [], {}, [1]])
def test_missing_facts_of_an_environment_are_unknown(record, part, value):
    path = changed(record, 0, put(part, value))
    found = load(path)
    text = f"{found.machine} {found.code} {found.busy}"
    assert ("unknown" in text) == (part != "devices")
    done = zoo_command("compare", path, path)
    assert done.exit_code == (2 if part in ("machine", "threads") else 0), done.output


def test_two_unknown_machines_are_not_the_same(record):
    path = changed(record, 0, put("machine", {}))
    assert "device: unknown and unknown" in zoo_command("compare", path, path).stderr
    assert zoo_command("compare", path, path, "--other-machine").exit_code == 0


def test_differences_of_compiler_and_arithmetic_are_printed_and_those_of_old_records_are_unknown(record):
    path = changed(
        record, 0, lambda line: line | {"compiler": {"version": "c++ 12"}, "arithmetic": {"tf32_cudnn": False}}
    )
    text = " ".join(zoo_command("compare", record, path).stdout.split())
    assert "compiler: first unknown; second version c++ 12" in text
    assert "arithmetic: first unknown; second tf32_cudnn False" in text
    assert "compiler: " not in zoo_command("compare", path, path).stdout


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\xff\xfe\x00junk\n" * 3, b"[1]\n", b'{"schema": 99, "kind": "x"}\n']
)
def test_a_file_without_records_gives_one_message(tmp_path, content):
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    for words in (("report", path), ("compare", path, path)):
        done = zoo_command(*words)
        assert (done.exit_code, done.stderr.count("Error: ")) == (2, 1)
        assert str(path) in done.stderr


def test_a_folder_instead_of_a_record_gives_one_message(tmp_path):
    (tmp_path / "records.jsonl").mkdir()
    done = zoo_command("report", tmp_path)
    assert (done.exit_code, done.stderr.count("Error: ")) == (2, 1)


def test_a_case_without_its_first_repetition_is_measured_again(record):
    first = record.read_text().splitlines()[1]
    with record.open("a") as file:
        file.write(json.dumps(json.loads(first) | {"repetition": 2}) + "\n")
    assert len(complete_cases(read(record), ID)[CASES[0]]) == 2
    path = changed(record, 1, lambda line: "{}")
    assert CASES[0] not in complete_cases(read(path), ID)


def test_a_case_has_only_the_fields_of_its_level():
    good = CASES[0].to_dict()
    for changes in ({"rows": None}, {"dim": None}, {"clips": 1}, {"level": "model"}):
        with pytest.raises(ValueError, match="a case of the level"):
            Case.from_dict(good | changes)


ODD = [None, 0, -1, 1, 1e308, 5e-324, math.nan, math.inf, 10**400, True, "", "$a_", "<b>", [], [[]], {}, {"a": 1}, "ok"]


def mutated(rng, value):
    """A value with one part removed, added or replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name, kind = rng.choice(list(value)), rng.random()
        if kind < 0.2:
            return {key: each for key, each in value.items() if key != name}
        return value | ({"of_a_later_version": rng.choice(ODD)} if kind < 0.3 else {name: mutated(rng, value[name])})
    return rng.choice(ODD)


def test_every_changed_record_gives_a_report_or_a_message(record, monkeypatch):
    monkeypatch.setattr("bench.analysis.plot.save", lambda panels, path: None)
    monkeypatch.setattr("bench.analysis.plot.svg", lambda panels: "<svg/>")
    rng, seen = random.Random(0), set()
    for _ in range(60):
        number = rng.choice([0, *range(1, 7)])
        path = changed(record, number, lambda line: mutated(rng, line))
        seen |= {zoo_command("report", path).exit_code, zoo_command("compare", record, path).exit_code}
        usable, wrong = measurements(read(path))
        assert len(usable) + len(wrong) >= len(CASES) - 1
    assert seen == {0, 2}


def test_records_of_older_versions_are_read():
    reading = read(Path(__file__).parents[2] / "old" / "84bfd00" / "bench.jsonl")
    (environment,) = reading.environments
    cases = complete_cases(reading, environment)
    assert {(case.mixer, case.frames) for case in cases} == {
        (mixer, frames) for mixer in ("attn", "bimamba:state=8") for frames in (4, 8)
    }
    for outcomes in cases.values():
        assert [outcome.status for outcome in outcomes] == ["ok"]
        assert outcomes[0].time_ms.p50 > 0
        assert outcomes[0].options == {}
