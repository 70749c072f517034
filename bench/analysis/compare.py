"""Compares two records case by case: ratios with intervals, and their geometric mean.  No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.sweep.case import Case
from bench.sweep.outcome import STATUS_WORDS, Outcome
from bench.sweep.results import BenchRecord
from temporal_zoo._support.statistics import Interval, bootstrap_geometric_mean, ratio
from temporal_zoo._support.units import number
from temporal_zoo.errors import InvalidInput

from .tables import Sheet


class CompareError(InvalidInput):
    """Two records that should not be compared; the message says why, and how to compare them nevertheless."""


@dataclass(frozen=True)
class ComparedCase:
    """A case that both records have, and the ratios second / first; None if one of the two has no value."""

    case: Case
    first: Outcome
    second: Outcome

    @property
    def time(self) -> Interval | None:
        """Ratio of the times, with its interval."""
        if self.first.time_ms is None or self.second.time_ms is None:
            return None
        return ratio(self.second.time_ms.interval, self.first.time_ms.interval)

    @property
    def stored(self) -> float | None:
        """Ratio of the bytes stored for backward."""
        return _ratio(self.second.stored_bytes, self.first.stored_bytes)

    @property
    def peak(self) -> float | None:
        """Ratio of the peaks above the memory before the step."""
        second, first = (each.memory.above if each.memory else None for each in (self.second, self.first))
        return _ratio(second, first)


def check_same_machine(first: BenchRecord, second: BenchRecord) -> None:
    """Checks that both records are from the same machine.

    Raises:
        CompareError: processor, GPU or number of threads differ or are unknown; the message names them.
    """
    ours, theirs = _machine(first), _machine(second)
    different = [name for name, value in ours.items() if value is None or value != theirs[name]]
    if different:
        facts = "; ".join(f"{name}: {_words(ours[name])} and {_words(theirs[name])}" for name in different)
        raise CompareError(f"the records are from different machines ({facts}); use --other-machine to compare them")


def differences(first: BenchRecord, second: BenchRecord) -> list[str]:
    """Differences of compiler and arithmetic between two records, a line for each."""
    parts = ("compiler", "arithmetic")
    facts = [(part, first.environment.get(part), second.environment.get(part)) for part in parts]
    return [f"{part}: first {_words(a)}; second {_words(b)}" for part, a, b in facts if a != b]


def common_cases(first: BenchRecord, second: BenchRecord) -> list[ComparedCase]:
    """Every case that both records have, in the order of the first.

    Raises:
        CompareError: the records have no case in common.
    """
    theirs = {result.case: result.outcome for result in second.results}
    pairs = [
        ComparedCase(result.case, result.outcome, theirs[result.case])
        for result in first.results
        if result.case in theirs
    ]
    if not pairs:
        raise CompareError(f"{first.path} and {second.path} have no case in common")
    return pairs


def overall(pairs: Sequence[ComparedCase]) -> Interval | None:
    """The geometric mean of the ratios of times; its interval is a bootstrap over the pairs."""
    ratios = [pair.time.value for pair in pairs if pair.time]
    return bootstrap_geometric_mean(ratios) if ratios else None


def sheets(pairs: Sequence[ComparedCase]) -> list[Sheet]:
    """One table for each setting and mode."""
    groups: dict[str, list[ComparedCase]] = {}
    for pair in pairs:
        groups.setdefault(f"{pair.case.setting}: {pair.case.mode}", []).append(pair)
    columns = ("case", "first (ms)", "second (ms)", "time, second / first", "stored", "peak", "")
    return [Sheet(title, columns, tuple(map(_row, group))) for title, group in groups.items()]


def plain(pairs: Sequence[ComparedCase]) -> dict[str, Any]:
    """Pairs and their mean as plain values."""
    mean = overall(pairs)
    rows = [
        {"case": pair.case.to_dict(), "ends": [pair.first.status, pair.second.status],
         "time": pair.time and vars(pair.time), "stored": pair.stored, "peak": pair.peak}
        for pair in pairs
    ]  # fmt: skip
    return {"pairs": rows, "time_geometric_mean": mean and vars(mean)}


def verdict(time: Interval | None) -> str:
    """ "slower" or "faster" if the interval of a ratio of times excludes 1, otherwise ""."""
    if time is None or time.contains(1):
        return ""
    return "slower" if time.value > 1 else "faster"


def _machine(record: BenchRecord) -> Mapping[str, Any]:
    """Facts that must be equal; None is an unknown fact, which is never equal."""
    devices = ", ".join(record.devices)
    return {
        "device": None if "unknown" in devices else devices,
        "cores": record.fact("machine", "usable_cores"),
        "threads": record.fact("threads", "torch"),
    }


def _words(fact: Any) -> str:
    if isinstance(fact, Mapping):
        return ", ".join(f"{name} {_words(value)}" for name, value in fact.items())
    if isinstance(fact, list):
        return " ".join(map(str, fact))
    return "unknown" if fact is None else str(fact)


def _ratio(value: int | None, base: int | None) -> float | None:
    return value / base if base and value is not None else None


def _row(pair: ComparedCase) -> tuple[str, ...]:
    medians = [
        number(each.time_ms.p50) if each.time_ms else STATUS_WORDS.get(each.status, "-")
        for each in (pair.first, pair.second)
    ]
    ratios = ("-" if each is None else f"{each:.3f}" for each in (pair.stored, pair.peak))
    return (f"{pair.case.mixer} {pair.case.frames}", *medians, str(pair.time or "-"), *ratios, verdict(pair.time))
