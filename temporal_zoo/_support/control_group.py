"""The memory that Linux lets this process have: the limits of its control group (a container, a job) and its parents.

Version 2 of control groups keeps them in /sys/fs/cgroup, version 1 in /sys/fs/cgroup/memory; /proc/self/cgroup says
where in there this process is.  Everywhere else nothing is found, and nothing limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
# Version 1 writes "no limit" as a number beyond any machine.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class _Files:
    """Where a version of control groups keeps its numbers."""

    mount: str
    limit: str
    used: str
    # In `memory.stat`: files that were read and not used again, which the system drops before it refuses memory.
    droppable: str


_VERSION_2 = _Files("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Files("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def limit_bytes() -> int | None:
    """The smallest limit of the process's group and its parents; None where there is none."""
    return min((limit for _, _, limit in _limited()), default=None)


def available_bytes() -> int | None:
    """What may still be allocated below every limit, files in the cache counted as free; None where nothing limits."""
    return min((_left(folder, files, limit) for folder, files, limit in _limited()), default=None)


def _left(folder: Path, files: _Files, limit: int) -> int:
    used = _number(_text(folder / files.used)) or 0
    lines = (line.partition(" ") for line in _text(folder / "memory.stat").splitlines())
    stat = {name: value for name, _, value in lines}
    droppable = _number(stat.get(files.droppable, "")) or 0
    return max(0, limit - used + min(droppable, used))


def _limited() -> Iterator[tuple[Path, _Files, int]]:
    for folder, files in _groups():
        limit = _number(_text(folder / files.limit))
        if limit is not None and limit < _NO_LIMIT:
            yield folder, files, limit


def _groups() -> Iterator[tuple[Path, _Files]]:
    """The process's groups of both versions, each with all its parents."""
    # The roots are looked at in any case: /proc may be hidden.
    for line in [*_text(ROOT / "proc/self/cgroup").splitlines(), "0::/", "1:memory:/"]:
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if "memory" in controllers.split(","):
            files = _VERSION_1
        elif number == "0" and not controllers:
            files = _VERSION_2
        else:
            continue
        mount = ROOT / files.mount
        # Inside a container the path may be the host's, of which only the root is mounted here.
        parts = [part for part in place.split("/") if part]
        inside = [] if ".." in parts else parts
        for count in range(len(inside), -1, -1):
            yield mount.joinpath(*inside[:count]), files


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
