"""Records: append-only JSON lines that say what was done, where, and how it ended.

A `Session` begins with one line of kind "environment"; every later line carries that environment's id:

    {"schema": 1, "kind": "environment", "id": "a91f...", "time": "2026-11-20T13:30:00+00:00", "machine": {...}, ...}
    {"schema": 1, "kind": "measurement", "environment": "a91f...", "time": "...", "case": {...}, "outcome": "ok", ...}

A line is written whole by one call, so several processes may append to one file.  A process that is killed while it
writes leaves at most one damaged line, which `read` reports and steps over.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporal_zoo._support.files import naming
from temporal_zoo.errors import InvalidInput

log = logging.getLogger("temporal_zoo._support.record")

SCHEMA = 1
_SHOWN = 5  # damaged lines that are told one by one


class RecordError(InvalidInput):
    """A record that cannot be written or a file that cannot be read as records."""


class Session:
    """A stretch of records made in one environment; the constructor writes that environment's line.

    Args:
        path: the file to append to; its folder is made.
        environment: what `temporal_zoo._support.environment.environment()` returned.
    Raises:
        OSError: the file cannot be written; better now than after the first hour.
    """

    def __init__(self, path: str | Path, environment: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.environment_id: str = environment["id"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._append({"schema": SCHEMA, "kind": "environment", "id": self.environment_id, "time": _now()}, environment)

    def write(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Appends one record of some kind ("measurement", "step", ...) that refers to the environment."""
        head = {"schema": SCHEMA, "kind": kind, "environment": self.environment_id, "time": _now()}
        self._append(head, fields)

    def _append(self, head: dict[str, Any], fields: Mapping[str, Any]) -> None:
        if taken := [name for name in fields if name in head and fields[name] != head[name]]:
            raise RecordError(f"a record's own fields cannot be named {', '.join(taken)}")
        try:
            text = json.dumps(head | dict(fields), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RecordError(f"a {head['kind']} record must hold plain finite values: {error}") from error
        # Half characters stand for bytes of names that are not UTF-8; JSON reads their escapes back as they were.
        line = text.encode(errors="backslashreplace") + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # A damaged last line is closed first; otherwise this record would be lost with it.
            if os.fstat(descriptor).st_size:
                os.lseek(descriptor, -1, os.SEEK_END)
                line = line if os.read(descriptor, 1) == b"\n" else b"\n" + line
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:  # of calls that know the descriptor and not the path
            raise OSError(error.errno, f"{error.strerror}; the record was not written whole", str(self.path)) from error
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Reading:
    """What a file holds: its records, its environments by id, and the lines that could not be read.

    Every record has a "schema" and a "kind"; one of kind "environment" has an "id", and every other an "environment".
    What else it holds is whatever the file says.  `lines` are the numbers of the records' lines.
    """

    records: tuple[dict[str, Any], ...]
    environments: dict[str, dict[str, Any]]
    damaged: tuple[tuple[int, str], ...]
    lines: tuple[int, ...] = ()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, in the order of the file."""
        return [record for _, record in self.numbered(kind)]

    def numbered(self, kind: str) -> list[tuple[int, dict[str, Any]]]:
        """The same, each with the number of its line."""
        found = zip(self.lines, self.records, strict=True)
        return [(number, record) for number, record in found if record["kind"] == kind]


def read(path: str | Path) -> Reading:
    """Reads a file of records; damaged lines are stepped over, logged as a warning and returned with their numbers.

    Raises:
        RecordError: the file holds no record at all, or records of a newer schema.
        OSError: it cannot be read.
    """
    records, lines, damaged = [], [], []
    with naming(path):
        content = Path(path).read_bytes()
    # Bytes, because a line may be cut within a character.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        record = _parsed(line)
        if record is None:
            damaged.append((number, line.decode(errors="replace")))
            continue
        if record["schema"] > SCHEMA:
            raise RecordError(
                f"{path}:{number} has schema {record['schema']}; this version reads up to {SCHEMA}: "
                "read it with the version of temporal-zoo that wrote it, or a newer one"
            )
        if not isinstance(record.get("id" if record["kind"] == "environment" else "environment"), str):
            damaged.append((number, line.decode(errors="replace")))
            continue
        records.append(record)
        lines.append(number)
    for number, text in damaged[:_SHOWN]:
        log.warning("%s:%d is damaged and was left out: %.60r", path, number, text[:60])
    if (more := len(damaged) - _SHOWN) > 0:
        log.warning("%s: %d more lines are damaged and were left out", path, more)
    if damaged and not records:
        raise RecordError(f"{path} is no file of records: not one of its {len(damaged)} lines could be read")
    environments = {record["id"]: record for record in records if record["kind"] == "environment"}
    return Reading(tuple(records), environments, tuple(damaged), tuple(lines))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # both JSON and UTF-8 errors; brackets within brackets without end
        return None
    good = isinstance(record, dict) and type(record.get("schema")) is int and isinstance(record.get("kind"), str)
    return record if good else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
