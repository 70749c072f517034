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


def test_a_session_begins_with_its_environment_and_the_rest_refers_to_it(path):
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
    found = read(path)
    assert list(found.environments) == ["e0", "e1", "e2"]
    assert [(r["environment"], r["number"]) for r in found.of("step")] == [("e0", 0), ("e1", 1), ("e2", 2)]
    assert not found.damaged


def test_text_survives_in_any_script(path):
    Session(path, ENVIRONMENT).write("note", {"text": "π\n\u2028 ü"})
    assert read(path).of("note")[0]["text"] == "π\n\u2028 ü"


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_truncated_last_line_is_reported_and_skipped(path, caplog, cut):
    session = Session(path, ENVIRONMENT)
    session.write("step", {"number": 0})
    session.write("step", {"number": "ü" * 10})
    path.write_bytes(path.read_bytes()[:-cut])
    with caplog.at_level(logging.WARNING, logger="temporal_zoo.record"):
        found = read(path)
    # Without its end of line only, the record is whole.
    whole = cut == 1
    assert len(found.of("step")) == 1 + whole
    assert [number for number, _ in found.damaged] == ([] if whole else [3])
    assert [":3 is damaged" in message for message in caplog.messages] == ([] if whole else [True])


def test_the_next_session_does_not_lose_its_first_line_to_the_damage(path):
    Session(path, ENVIRONMENT).write("step", {"number": 0})
    path.write_bytes(path.read_bytes()[:-10])
    Session(path, {"id": "next"}).write("step", {"number": 1})
    found = read(path)
    assert list(found.environments) == ["a91f", "next"]
    assert [r["number"] for r in found.of("step")] == [1]
    assert len(found.damaged) == 1


def test_every_record_is_one_write_at_the_end_of_the_file(path, monkeypatch):
    writes = []
    write = os.write
    monkeypatch.setattr(record.os, "write", lambda descriptor, data: writes.append(data) or write(descriptor, data))
    Session(path, ENVIRONMENT).write("step", {"text": "x" * 100_000})
    assert [data.count(b"\n") for data in writes] == [1, 1]
    assert b"".join(writes) == path.read_bytes()


def test_processes_may_write_at_the_same_time(path):
    code = (
        "import sys; from temporal_zoo._support.record import Session;"
        "session = Session(sys.argv[1], {'id': sys.argv[2]});"
        "[session.write('step', {'number': number, 'text': 'x' * 5000}) for number in range(40)]"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    found = read(path)
    assert not found.damaged
    for name in "abc":
        assert [r["number"] for r in found.of("step") if r["environment"] == name] == list(range(40))


def test_a_disk_that_is_full_is_an_error(path, monkeypatch):
    session = Session(path, ENVIRONMENT)
    write = os.write
    monkeypatch.setattr(record.os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    with pytest.raises(OSError, match="the record is incomplete"):
        session.write("step", {})


@pytest.mark.parametrize("fields", [{"loss": float("nan")}, {"loss": float("inf")}, {"x": object()}])
def test_what_is_not_plain_and_finite_is_refused_before_anything_is_written(path, fields):
    session = Session(path, ENVIRONMENT)
    before = path.read_bytes()
    with pytest.raises(RecordError, match="a step record must hold finite values that JSON can hold"):
        session.write("step", fields)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["schema", "kind", "environment", "time"])
def test_the_fields_of_the_head_cannot_be_overwritten(path, name):
    with pytest.raises(RecordError, match=name):
        Session(path, ENVIRONMENT).write("step", {name: "mine"})


def test_a_newer_schema_is_refused(path):
    Session(path, ENVIRONMENT)
    with path.open("a") as file:
        file.write(json.dumps({"schema": SCHEMA + 1, "kind": "step"}) + "\n")
    with pytest.raises(RecordError, match=rf":2 has schema {SCHEMA + 1}; this version reads up to {SCHEMA}"):
        read(path)


@pytest.mark.parametrize("text", ["hello\n", "[1, 2]\n3\n", '{"kind": "step"}\n', "\x00\x01"])
def test_another_kind_of_file_is_refused(tmp_path, text):
    path = tmp_path / "other.txt"
    path.write_text(text)
    with pytest.raises(RecordError, match="is not a file of records"):
        read(path)


def test_an_empty_file_holds_no_records(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.touch()
    assert read(path).records == ()


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Session(tmp_path / "file" / "records.jsonl", ENVIRONMENT)
