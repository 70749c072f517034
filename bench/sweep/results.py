"""Reads records as results: the latest measurements of one environment, case by case.  No torch."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporal_zoo._support.record import Reading, RecordError, read
from temporal_zoo.errors import InvalidInput

from .case import Case
from .machine_load import BUSY_PERCENT
from .outcome import Outcome
from .repetitions import Line, by_case, combine

log = logging.getLogger("temporal_zoo.bench")

RECORD = "records.jsonl"
_MAX_REASONS = 5  # more are only counted


@dataclass(frozen=True)
class CaseResult:
    """A case and its outcome."""

    case: Case
    outcome: Outcome


@dataclass(frozen=True)
class BenchRecord:
    """The measurements of one environment: results in the order of their cases, and the lines of the record.

    `others` is the number of measurements of other environments in the same file.  `left_out` has a reason for every
    line that cannot be used.  Facts that the environment lacks are "unknown".
    """

    path: Path
    environment: Mapping[str, Any]
    results: tuple[CaseResult, ...]
    lines: tuple[Line, ...]
    others: int = 0
    left_out: tuple[str, ...] = ()

    def fact(self, *names: str) -> Any:
        """A plain value of the environment, such as `fact("machine", "processor")`; None if the file has none."""
        value: Any = self.environment
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value if isinstance(value, (str, int, float)) else None

    @property
    def devices(self) -> list[str]:
        """Names of the devices that ran the cases."""
        kinds = {result.case.device.partition(":")[0] for result in self.results}
        cpu = [self.fact("machine", "processor") or "unknown CPU"] * ("cpu" in kinds)
        return [*map(str, cpu), *(sorted(self._gpus) or ["unknown GPU"]) * ("cuda" in kinds)]

    @property
    def _gpus(self) -> set[str]:
        listed = self.environment.get("devices")
        devices = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
        return {str(each["name"]) for each in devices if "name" in each}

    @property
    def machine(self) -> str:
        """Devices, cores, memory, system, torch and threads, in words."""
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
        """Version and commit of the code, in words."""
        version, commit, sources = (self.fact("code", name) for name in ("version", "commit", "sources"))
        which = f"commit {str(commit)[:12]}" if commit else f"sources {_or_unknown(sources)}"
        changes = " with changes" if self.fact("code", "dirty") is True else ""
        return f"temporal_zoo {_or_unknown(version)}, {which}{changes}"

    @property
    def busy(self) -> int:
        """Number of measurements that began while other programs used more than `BUSY_PERCENT` of the processors."""
        loads = [line.get("busy_percent_before") for line in self.lines]
        return sum(load > BUSY_PERCENT for load in loads if isinstance(load, (int, float)))

    @property
    def remarks(self) -> list[str]:
        """Sentences about the parts of the file that were left out."""
        sentences = [f"Left out of {self.path}: {reason}." for reason in self.left_out[:_MAX_REASONS]]
        if (more := len(self.left_out) - _MAX_REASONS) > 0:
            sentences.append(f"Left out of {self.path}: {more} more lines.")
        if self.others:
            sentences.append(f"Left out: {self.others} measurements of other environments; --environment shows them.")
        return sentences


def _or_unknown(value: Any) -> Any:
    return "unknown" if value is None else value


def load(path: Path, environment: str | None = None) -> BenchRecord:
    """The measurements of one environment.

    Args:
        path: a record, or a folder with a record.
        environment: the beginning of an environment's id; by default the environment of the last measurement.
    Raises:
        RecordError: there is no record, no measurement in it, or no measurement of that environment.
    """
    path = _record_at(path)
    reading = read(path)
    usable, left_out = measurements(reading)
    measured = [line for line in usable if line["environment"] in reading.environments]
    if lost := len(usable) - len(measured):
        unknown = dict.fromkeys(line["environment"] for line in usable if line not in measured)
        left_out.append(f"{lost} measurements, because the line of their environment is missing ({', '.join(unknown)})")
    if not measured:
        why = f" that can be used ({left_out[0]})" if left_out else ""
        raise RecordError(f"{path} has no measurement{why}; `zoo bench --out {path.parent}` adds some")
    ids = list(dict.fromkeys(line["environment"] for line in measured))
    chosen = _choose(ids, measured[-1]["environment"] if environment is None else environment, path)
    cases = by_case(line for line in measured if line["environment"] == chosen)
    results = [CaseResult(case, combine([*map(Outcome.from_dict, lines)])) for case, lines in cases.items()]
    lines = tuple(itertools.chain.from_iterable(cases.values()))
    others = sum(line["environment"] != chosen for line in measured)
    return BenchRecord(path, reading.environments[chosen], tuple(results), lines, others, tuple(left_out))


def _record_at(path: Path) -> Path:
    record = path / RECORD if path.is_dir() else path
    if not record.is_file():
        raise RecordError(f"{path} has no {RECORD}; `zoo bench --out {path}` writes one")
    return record


def _choose(ids: list[str], beginning: str, path: Path) -> str:
    matches = [each for each in ids if each == beginning] or [each for each in ids if each.startswith(beginning)]
    if len(matches) != 1:
        number = "several environments that begin" if matches else "no environment that begins"
        raise RecordError(f"{path} has {number} with {beginning!r}; it has {', '.join(ids)}")
    return matches[0]


def measurements(reading: Reading) -> tuple[list[Line], list[str]]:
    """The usable measurements in the order of the file, and for every other line its number and the reason."""
    usable: list[Line] = []
    reasons = [f"line {number} is damaged" for number, _ in reading.damaged]
    for number, line in reading.numbered("measurement"):
        try:
            _check(line)
        except InvalidInput as error:
            reasons.append(f"line {number}: {error}")
        else:
            usable.append(line)
    return usable, reasons


def _check(line: Line) -> None:
    if not isinstance(line.get("case"), dict):
        raise RecordError('there is no "case"')
    if type(line.get("repetition", 1)) is not int:
        raise RecordError(f"repetition {line['repetition']!r} is not a number")
    Case.from_dict(line["case"])
    Outcome.from_dict(line)


def complete_cases(reading: Reading, environment: str) -> dict[Case, list[Outcome]]:
    """Case -> the outcomes of its repetitions in one environment.

    A case without its first repetition is left out, because only the first process measures memory and agreement.
    """
    usable, reasons = measurements(reading)
    for reason in reasons[len(reading.damaged) :]:  # `read` has logged the damaged lines
        log.warning("a measurement was left out: %s", reason)
    cases = by_case(line for line in usable if line["environment"] == environment)
    complete = {case: lines for case, lines in cases.items() if lines[0].get("repetition", 1) == 1}
    return {case: [Outcome.from_dict(line) for line in lines] for case, lines in complete.items()}
