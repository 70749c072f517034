"""Records: files of JSON lines, to which results are appended together with their environment.

A `Session` begins with one line of kind "environment"; every later line carries that environment's id:

    {"schema": 1, "kind": "environment", "id": "a91f...", "time": "2026-11-20T13:30:00+00:00", "machine": {...}, ...}
    {"schema": 1, "kind": "measurement", "environment": "a91f...", "time": "...", "case": {...}, "outcome": "ok", ...}

One system call writes a whole line, so several processes can append to one file.  A process that is killed while it
writes leaves at most one damaged line; `read` reports that line and skips it.
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

log = logging.getLogger("temporal_zoo.record")

SCHEMA = 1
_SHOWN = 5  # damaged lines with a warning each


class RecordError(InvalidInput):
    """A record cannot be written, or a file holds no records."""


class Session:
    """Appends records of one environment to a file; the constructor writes the line of the environment.

    Args:
        path: the file; its folder is created where it is missing.
        environment: the result of `temporal_zoo._support.environment.environment()`.
    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path, environment: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.environment_id: str = environment["id"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._append({"schema": SCHEMA, "kind": "environment", "id": self.environment_id, "time": _now()}, environment)

    def write(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Appends one record of a kind such as "measurement" or "step", with the id of the environment."""
        head = {"schema": SCHEMA, "kind": kind, "environment": self.environment_id, "time": _now()}
        self._append(head, fields)

    def _append(self, head: dict[str, Any], fields: Mapping[str, Any]) -> None:
        if taken := [name for name in fields if name in head and fields[name] != head[name]]:
            raise RecordError(f"the names {', '.join(taken)} are reserved; rename these fields of the record")
        try:
            text = json.dumps(head | dict(fields), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RecordError(f"a {head['kind']} record must hold finite values that JSON can hold: {error}") from error
        # Lone surrogates stand for bytes of file names that are not UTF-8; JSON restores them from their escapes.
        line = text.encode(errors="backslashreplace") + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # Ends a damaged last line, which would otherwise damage this record too.
            if os.fstat(descriptor).st_size:
                os.lseek(descriptor, -1, os.SEEK_END)
                line = line if os.read(descriptor, 1) == b"\n" else b"\n" + line
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:  # calls with a descriptor raise errors without a path
            raise OSError(error.errno, f"{error.strerror}; the record is incomplete", str(self.path)) from error
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Reading:
    """The content of a file: its records, its environments by id, and its damaged lines with their numbers.

    Every record has a "schema" and a "kind"; a record of kind "environment" has an "id", every other one has an
    "environment".  Further fields are not checked.  `lines` has the line number of each record.
    """

    records: tuple[dict[str, Any], ...]
    environments: dict[str, dict[str, Any]]
    damaged: tuple[tuple[int, str], ...]
    lines: tuple[int, ...] = ()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, in the order of the file."""
        return [record for _, record in self.numbered(kind)]

    def numbered(self, kind: str) -> list[tuple[int, dict[str, Any]]]:
        """The records of one kind with their line numbers."""
        pairs = zip(self.lines, self.records, strict=True)
        return [(number, record) for number, record in pairs if record["kind"] == kind]


def read(path: str | Path) -> Reading:
    """Reads a file of records; skips damaged lines, logs a warning and returns them with their numbers.

    Raises:
        RecordError: the file holds no record, or records of a newer schema.
        OSError: it cannot be read.
    """
    records, lines, damaged = [], [], []
    with naming(path):
        content = Path(path).read_bytes()
    # Bytes, because a line may end within a character.
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
                "read it with the version of temporal-zoo that wrote it, or with a newer one"
            )
        if not isinstance(record.get("id" if record["kind"] == "environment" else "environment"), str):
            damaged.append((number, line.decode(errors="replace")))
            continue
        records.append(record)
        lines.append(number)
    for number, text in damaged[:_SHOWN]:
        log.warning("%s:%d is damaged; skipped it: %.60r", path, number, text[:60])
    if (more := len(damaged) - _SHOWN) > 0:
        log.warning("%s: skipped %d more damaged lines", path, more)
    if damaged and not records:
        raise RecordError(f"{path} is not a file of records: none of its {len(damaged)} lines can be read")
    environments = {record["id"]: record for record in records if record["kind"] == "environment"}
    return Reading(tuple(records), environments, tuple(damaged), tuple(lines))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # errors of JSON and of UTF-8; brackets nested too deeply
        return None
    good = isinstance(record, dict) and type(record.get("schema")) is int and isinstance(record.get("kind"), str)
    return record if good else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
