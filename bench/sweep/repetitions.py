"""One case in several processes, and what they come to together.  Torch-free."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from temporal_zoo._support.record import Reading, RecordError
from temporal_zoo.errors import InvalidInput

from .case import Case
from .outcome import Outcome, Times

Line = Mapping[str, Any]


def measurements(reading: Reading) -> tuple[list[Line], list[str]]:
    """The measurements that can be used, in the order of the file; and of all others the line and what is wrong."""
    good: list[Line] = []
    wrong = [f"line {number} is damaged" for number, _ in reading.damaged]
    for number, line in reading.numbered("measurement"):
        try:
            _check(line)
        except InvalidInput as error:
            wrong.append(f"line {number}: {error}")
        else:
            good.append(line)
    return good, wrong


def _check(line: Line) -> None:
    if not isinstance(line.get("case"), dict):
        raise RecordError('there is no "case"')
    if type(line.get("repetition", 1)) is not int:
        raise RecordError(f"repetition {line['repetition']!r} is no number")
    Case.from_dict(line["case"])
    Outcome.from_dict(line)


def by_case(lines: Iterable[Line]) -> dict[Case, list[Line]]:
    """Case -> its lines of a record, one for each repetition; the first of them begins the case anew."""
    found: dict[Case, list[Line]] = {}
    for line in lines:
        case = Case.from_dict(line["case"])
        if line.get("repetition", 1) == 1:  # older records know of no other
            found.pop(case, None)
        found.setdefault(case, []).append(line)
    return found


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a case: that of the first process with the times of all; or the first that is not "ok"."""
    for number, outcome in enumerate(outcomes, start=1):
        if outcome.status != "ok":
            where = f"in process {number}: " if number > 1 else ""
            return replace(outcome, reason=f"{where}{outcome.reason}")
    times = [outcome.time_ms for outcome in outcomes if outcome.time_ms]
    return replace(outcomes[0], time_ms=Times.together(times) if times else None)


def drift(outcomes: Iterable[Outcome]) -> list[float]:
    """Of every repetition, how many times the usual time all cases together took: what the machine did meanwhile."""
    found = [outcome.time_ms for outcome in outcomes if outcome.time_ms and outcome.time_ms.processes > 1]
    count = max((times.processes for times in found), default=0)
    whole = [[math.log(median / times.p50) for median in times.medians] for times in found if times.processes == count]
    return [math.exp(statistics.fmean(each)) for each in zip(*whole, strict=True)]
