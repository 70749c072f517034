"""Records as results: what one environment measured of each case, when it did so last.  Torch-free."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporal_zoo.record import RecordError, read

from .curves import Result
from .outcome import Outcome
from .repetitions import by_case, together
from .surroundings import BUSY_PERCENT

RECORD = "records.jsonl"


@dataclass(frozen=True)
class Run:
    """What one environment measured: results in the order in which their cases came, and the lines they are from.

    `others` counts the measurements of other environments in the same file.
    """

    path: Path
    environment: Mapping[str, Any]
    results: tuple[Result, ...]
    lines: tuple[Mapping[str, Any], ...]
    others: int = 0

    @property
    def devices(self) -> list[str]:
        """Names of the devices that cases ran on."""
        kinds = {result.case.device.partition(":")[0] for result in self.results}
        cpu = [self.environment["machine"]["processor"] or "CPU"] * ("cpu" in kinds)
        return cpu + sorted({device["name"] for device in self.environment["devices"]}) * ("cuda" in kinds)

    @property
    def machine(self) -> str:
        """The machine in words."""
        about, software = self.environment["machine"], self.environment["software"]
        cuda = f", CUDA {software['cuda']}" if software["cuda"] and self.environment["devices"] else ""
        threads = self.environment["threads"]["torch"]
        return (
            f"{', '.join(self.devices)}; {about['usable_cores']} usable cores, "
            f"{(about['memory_bytes'] or 0) / 2**30:.0f} GiB, {about['system']}; "
            f"torch {software['torch']}{cuda}, {threads} thread{'s' * (threads != 1)}"
        )

    @property
    def code(self) -> str:
        """The code in words."""
        code = self.environment["code"]
        commit = f"commit {code['commit'][:12]}" if code["commit"] else f"sources {code['sources']}"
        return f"temporal_zoo {code['version']}, {commit}{' with changes' if code['dirty'] else ''}"

    @property
    def busy(self) -> int:
        """Measurements before which other programs had a good part of the processors."""
        return sum((line.get("busy_percent_before") or 0) > BUSY_PERCENT for line in self.lines)


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
    measured = reading.of("measurement")
    if not measured:
        raise RecordError(f"{path} holds no measurement; `zoo bench` makes some")
    ids = list(dict.fromkeys(line["environment"] for line in measured))
    sought = measured[-1]["environment"] if environment is None else environment
    wanted = [each for each in ids if each.startswith(sought)]
    if len(wanted) != 1:
        raise RecordError(f"{path} has no one environment {environment!r}; it has {', '.join(ids)}")
    found = by_case(line for line in measured if line["environment"] == wanted[0])
    results = [Result(case, together([*map(Outcome.from_dict, lines)])) for case, lines in found.items()]
    lines = tuple(itertools.chain.from_iterable(found.values()))
    others = sum(line["environment"] != wanted[0] for line in measured)
    return Run(path, reading.environments[wanted[0]], tuple(results), lines, others)
