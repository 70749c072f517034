"""Repetitions of a case, one process each: groups their lines of a record and combines their outcomes.  No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .case import Case
from .outcome import Outcome, Times

Line = Mapping[str, Any]


def by_case(lines: Iterable[Line]) -> dict[Case, list[Line]]:
    """Case -> its lines of a record, one per repetition; a later first repetition replaces all earlier lines."""
    groups: dict[Case, list[Line]] = {}
    for line in lines:
        case = Case.from_dict(line["case"])
        if line.get("repetition", 1) == 1:  # older records have no other repetition
            groups.pop(case, None)
        groups.setdefault(case, []).append(line)
    return groups


def combine(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a case: the first process's with the times of all; or the first one that is not "ok"."""
    for number, outcome in enumerate(outcomes, start=1):
        if outcome.status != "ok":
            where = f"in process {number}: " if number > 1 else ""
            return replace(outcome, reason=f"{where}{outcome.reason}")
    times = [outcome.time_ms for outcome in outcomes if outcome.time_ms]
    return replace(outcomes[0], time_ms=Times.combine(times) if times else None)


def drift(outcomes: Iterable[Outcome]) -> list[float]:
    """For each repetition, the time of all cases relative to their means; it shows changes of the machine's speed."""
    repeated = [outcome.time_ms for outcome in outcomes if outcome.time_ms and outcome.time_ms.processes > 1]
    count = max((times.processes for times in repeated), default=0)
    complete = [times for times in repeated if times.processes == count]
    logs = [[math.log(median / times.p50) for median in times.medians] for times in complete]
    return [math.exp(statistics.fmean(each)) for each in zip(*logs, strict=True)]
