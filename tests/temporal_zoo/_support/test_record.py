"""Records: whole lines, one environment per session; damaged lines are reported and skipped."""

import json
import logging
import os
import subprocess
import sys

import pytest

from temporal_zoo._support import record
from temporal_zoo._support.record import SCHEMA, RecordError, Session, read

ENVIRONMENT = {"id": "a91f", "machine": {"cores": 2}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "folder" / "records.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_session_begins_with_its_environment_and_records_have_its_id(path):
    session = Session(path, ENVIRONMENT)
    session.write("measurement", {"case": {"mixer": "bimamba"}, "outcome": "ok"})
    first, second = lines(path)
    assert (first["kind"], first["id"], first["machine"], first["schema"]) == (
        "environment",
        "a91f",
        {"cores": 2},
        SCHEMA,
    )
    assert (second["kind"], second["environment"], second["outcome"]) == ("measurement", "a91f", "ok")
    assert second["time"].endswith("+00:00")


def test_sessions_append(path):
    for number in range(3):
        Session(path, {"id": f"e{number}"}).write("step", {"number": number})
    reading = read(path)
    assert list(reading.environments) == ["e0", "e1", "e2"]
    assert [(r["environment"], r["number"]) for r in reading.of("step")] == [("e0", 0), ("e1", 1), ("e2", 2)]
    assert not reading.damaged


def test_texts_in_any_script_are_read_as_written(path):
    Session(path, ENVIRONMENT).write("note", {"text": "π\n\u2028 ü"})
    assert read(path).of("note")[0]["text"] == "π\n\u2028 ü"


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_truncated_last_line_is_reported_and_skipped(path, caplog, cut):
    session = Session(path, ENVIRONMENT)
    session.write("step", {"number": 0})
    session.write("step", {"number": "ü" * 10})
    path.write_bytes(path.read_bytes()[:-cut])
    with caplog.at_level(logging.WARNING, logger="temporal_zoo.record"):
        reading = read(path)
    # If only the end of line is missing, the record is complete.
    complete = cut == 1
    assert len(reading.of("step")) == 1 + complete
    assert [number for number, _ in reading.damaged] == ([] if complete else [3])
    assert [":3 is damaged" in message for message in caplog.messages] == ([] if complete else [True])


def test_a_session_after_a_damaged_line_loses_no_record(path):
    Session(path, ENVIRONMENT).write("step", {"number": 0})
    path.write_bytes(path.read_bytes()[:-10])
    Session(path, {"id": "next"}).write("step", {"number": 1})
    reading = read(path)
    assert list(reading.environments) == ["a91f", "next"]
    assert [r["number"] for r in reading.of("step")] == [1]
    assert len(reading.damaged) == 1


def test_every_record_is_one_write_at_the_end_of_the_file(path, monkeypatch):
    writes = []
    write = os.write
    monkeypatch.setattr(record.os, "write", lambda descriptor, data: writes.append(data) or write(descriptor, data))
    Session(path, ENVIRONMENT).write("step", {"text": "x" * 100_000})
    assert [data.count(b"\n") for data in writes] == [1, 1]
    assert b"".join(writes) == path.read_bytes()


def test_processes_can_write_at_the_same_time(path):
    code = (
        "import sys; from temporal_zoo._support.record import Session;"
        "session = Session(sys.argv[1], {'id': sys.argv[2]});"
        "[session.write('step', {'number': number, 'text': 'x' * 5000}) for number in range(40)]"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    reading = read(path)
    assert not reading.damaged
    for name in "abc":
        assert [r["number"] for r in reading.of("step") if r["environment"] == name] == list(range(40))


def test_an_incomplete_write_is_an_error(path, monkeypatch):
    session = Session(path, ENVIRONMENT)
    write = os.write
    monkeypatch.setattr(record.os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    with pytest.raises(OSError, match="the record is incomplete"):
        session.write("step", {})


@pytest.mark.parametrize("fields", [{"loss": float("nan")}, {"loss": float("inf")}, {"x": object()}])
def test_a_record_with_other_values_than_json_has_is_an_error_and_not_written(path, fields):
    session = Session(path, ENVIRONMENT)
    before = path.read_bytes()
    with pytest.raises(RecordError, match="a step record must hold finite values that JSON can hold"):
        session.write("step", fields)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["schema", "kind", "environment", "time"])
def test_a_record_with_a_reserved_name_is_an_error(path, name):
    with pytest.raises(RecordError, match=name):
        Session(path, ENVIRONMENT).write("step", {name: "another"})


def test_a_newer_schema_is_an_error(path):
    Session(path, ENVIRONMENT)
    with path.open("a") as file:
        file.write(json.dumps({"schema": SCHEMA + 1, "kind": "step"}) + "\n")
    with pytest.raises(RecordError, match=rf":2 has schema {SCHEMA + 1}; this version reads up to {SCHEMA}"):
        read(path)


@pytest.mark.parametrize("text", ["hello\n", "[1, 2]\n3\n", '{"kind": "step"}\n', "\x00\x01"])
def test_a_file_without_records_is_an_error(tmp_path, text):
    path = tmp_path / "other.txt"
    path.write_text(text)
    with pytest.raises(RecordError, match="is not a file of records"):
        read(path)


def test_an_empty_file_holds_no_records(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.touch()
    assert read(path).records == ()


def test_a_session_in_a_file_instead_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Session(tmp_path / "file" / "records.jsonl", ENVIRONMENT)
