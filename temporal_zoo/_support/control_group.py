"""Memory limits of the Linux control group (a container or a job) of this process, and of the parents of that group.

Version 2 of control groups keeps the limits in /sys/fs/cgroup, version 1 in /sys/fs/cgroup/memory; /proc/self/cgroup
names the group of this process.  On other systems there are no limits.
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
    """Names of the files of one version of control groups."""

    mount: str
    limit: str
    used: str
    # A field of `memory.stat`: cached files without recent use, which the system drops before it refuses memory.
    droppable: str


_VERSION_2 = _Files("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Files("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def limit_bytes() -> int | None:
    """The smallest limit of the group and its parents, in bytes; None without a limit."""
    return min((limit for _, _, limit in _limited_groups()), default=None)


def available_bytes() -> int | None:
    """Bytes that this process may still allocate, cached files counted as free; None without a limit."""
    return min((_available(folder, files, limit) for folder, files, limit in _limited_groups()), default=None)


def _available(folder: Path, files: _Files, limit: int) -> int:
    used = _number(_text(folder / files.used)) or 0
    lines = (line.partition(" ") for line in _text(folder / "memory.stat").splitlines())
    stat = {name: value for name, _, value in lines}
    droppable = _number(stat.get(files.droppable, "")) or 0
    return max(0, limit - used + min(droppable, used))


def _limited_groups() -> Iterator[tuple[Path, _Files, int]]:
    for folder, files in _groups():
        limit = _number(_text(folder / files.limit))
        if limit is not None and limit < _NO_LIMIT:
            yield folder, files, limit


def _groups() -> Iterator[tuple[Path, _Files]]:
    """The groups of this process, of both versions, each followed by its parents."""
    # The roots come last in any case, because /proc may be hidden.
    for line in [*_text(ROOT / "proc/self/cgroup").splitlines(), "0::/", "1:memory:/"]:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            files = _VERSION_1
        elif number == "0" and not controllers:
            files = _VERSION_2
        else:
            continue
        mount = ROOT / files.mount
        # Inside a container the path may be the host's, of which only the root is mounted here.
        parts = [part for part in path.split("/") if part]
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
