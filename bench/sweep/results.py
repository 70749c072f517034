"""Records as results: what one environment measured of each case, when it did so last.  Torch-free."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.analysis.curves import Result
from temporal_zoo._support.record import RecordError, read

from .load import BUSY_PERCENT
from .outcome import Outcome
from .repetitions import by_case, measurements, together

RECORD = "records.jsonl"
_SHOWN = 5  # reasons that are told one by one


@dataclass(frozen=True)
class Run:
    """What one environment measured: results in the order in which their cases came, and the lines they are from.

    `others` counts the measurements of other environments in the same file, and `left_out` says of every line that
    cannot be used what is wrong with it.  What the file does not say of the environment is "unknown".
    """

    path: Path
    environment: Mapping[str, Any]
    results: tuple[Result, ...]
    lines: tuple[Mapping[str, Any], ...]
    others: int = 0
    left_out: tuple[str, ...] = ()

    def fact(self, *names: str) -> Any:
        """A plain value of the environment, such as `fact("machine", "processor")`; None where the file has none."""
        value: Any = self.environment
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value if isinstance(value, (str, int, float)) else None

    @property
    def devices(self) -> list[str]:
        """Names of the devices that cases ran on."""
        kinds = {result.case.device.partition(":")[0] for result in self.results}
        cpu = [self.fact("machine", "processor") or "unknown CPU"] * ("cpu" in kinds)
        return [*map(str, cpu), *(sorted(self._gpus) or ["unknown GPU"]) * ("cuda" in kinds)]

    @property
    def _gpus(self) -> set[str]:
        listed = self.environment.get("devices")
        rows = [row for row in listed if isinstance(row, Mapping)] if isinstance(listed, list) else []
        return {str(row["name"]) for row in rows if "name" in row}

    @property
    def machine(self) -> str:
        """The machine in words."""
        cores, memory, system = (self.fact("machine", name) for name in ("usable_cores", "memory_bytes", "system"))
        cuda = f", CUDA {self.fact('software', 'cuda')}" if self.fact("software", "cuda") and self._gpus else ""
        threads = self.fact("threads", "torch")
        size = f"{memory / 2**30:.0f} GiB" if isinstance(memory, (int, float)) else "unknown memory"
        return (
            f"{', '.join(self.devices)}; {_or_unknown(cores)} usable cores, {size}, {_or_unknown(system)}; "
            f"torch {_or_unknown(self.fact('software', 'torch'))}{cuda}, "
            f"{_or_unknown(threads)} thread{'s' * (threads != 1)}"
        )

    @property
    def code(self) -> str:
        """The code in words."""
        version, commit, sources = (self.fact("code", name) for name in ("version", "commit", "sources"))
        which = f"commit {str(commit)[:12]}" if commit else f"sources {_or_unknown(sources)}"
        changes = " with changes" if self.fact("code", "dirty") is True else ""
        return f"temporal_zoo {_or_unknown(version)}, {which}{changes}"

    @property
    def busy(self) -> int:
        """Measurements before which other programs had a good part of the processors."""
        shares = [line.get("busy_percent_before") for line in self.lines]
        return sum(share > BUSY_PERCENT for share in shares if isinstance(share, (int, float)))


def _or_unknown(value: Any) -> Any:
    return "unknown" if value is None else value


def find(place: Path) -> Path:
    """The record that a path means: itself, or the one in its folder.

    Raises:
        RecordError: there is none.
    """
    path = place / RECORD if place.is_dir() else place
    if not path.is_file():
        raise RecordError(f"{place} holds no {RECORD}; `zoo bench --out {place}` writes one")
    return path


def load(place: Path, environment: str | None = None) -> Run:
    """The measurements of one environment in a record.

    Args:
        place: a record, or a folder that holds one.
        environment: the beginning of its id; unless given, the environment of the last measurement.
    Raises:
        RecordError: no record, no measurement in it, or none of that environment.
    """
    path = find(place)
    reading = read(path)
    usable, left_out = measurements(reading)
    measured = [line for line in usable if line["environment"] in reading.environments]
    if lost := len(usable) - len(measured):
        unknown = dict.fromkeys(line["environment"] for line in usable if line not in measured)
        left_out.append(f"{lost} measurements, because the line of their environment is missing ({', '.join(unknown)})")
    if not measured:
        why = f" that can be used ({left_out[0]})" if left_out else ""
        raise RecordError(f"{path} holds no measurement{why}; `zoo bench --out {path.parent}` makes some")
    ids = list(dict.fromkeys(line["environment"] for line in measured))
    sought = measured[-1]["environment"] if environment is None else environment
    wanted = [each for each in ids if each == sought] or [each for each in ids if each.startswith(sought)]
    if len(wanted) != 1:
        raise RecordError(f"{path} has no one environment {environment!r}; it has {', '.join(ids)}")
    found = by_case(line for line in measured if line["environment"] == wanted[0])
    results = [Result(case, together([*map(Outcome.from_dict, lines)])) for case, lines in found.items()]
    lines = tuple(itertools.chain.from_iterable(found.values()))
    others = sum(line["environment"] != wanted[0] for line in measured)
    return Run(path, reading.environments[wanted[0]], tuple(results), lines, others, tuple(left_out))


def remarks(run: Run) -> list[str]:
    """What of a record was left out, in sentences."""
    found = [f"Left out of {run.path}: {reason}." for reason in run.left_out[:_SHOWN]]
    if (more := len(run.left_out) - _SHOWN) > 0:
        found.append(f"Left out of {run.path}: {more} more lines.")
    if run.others:
        found.append(f"{run.others} measurements of other environments were left out; --environment shows them.")
    return found
