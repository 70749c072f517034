"""Two runs case by case: paired ratios with intervals, and what they come to over all pairs.  Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.sweep.case import Case
from bench.sweep.outcome import ENDS, Outcome, Times
from bench.sweep.results import Run
from temporal_zoo._support.units import number
from temporal_zoo.errors import InvalidInput

from .tables import Sheet

# Of the interval of a mean; and how many times its pairs are drawn again for it.
_INTERVAL = (2.5, 97.5)
_DRAWS = 2000


class CompareError(InvalidInput):
    """Two runs that should not be compared; the message says why, and how to do it all the same."""


@dataclass(frozen=True)
class Ratio:
    """How many times the first run fits into the second, and the interval of that."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether one is outside of the interval."""
        return not self.low <= 1 <= self.high

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Pair:
    """A case that both runs have, and its ratios, second over first; None where one of the two has no number."""

    case: Case
    first: Outcome
    second: Outcome
    time: Ratio | None
    stored: float | None
    peak: float | None


def check_same_machine(first: Run, second: Run) -> None:
    """Refuses runs of different machines.

    Raises:
        CompareError: processor, GPU or number of threads differ; the message names what.
    """
    # What is unknown of one cannot be said to be the same.
    other = [name for name, value in _identity(first).items() if value is None or value != _identity(second)[name]]
    if other:
        told = "; ".join(
            f"{name}: {_told(_identity(first)[name])} and {_told(_identity(second)[name])}" for name in other
        )
        raise CompareError(f"these are different machines ({told}); --other-machine compares them all the same")


def differences(first: Run, second: Run) -> list[str]:
    """In what two runs of one machine differ all the same: compiler and arithmetic, a line for each."""
    parts = ("compiler", "arithmetic")
    facts = [(part, first.environment.get(part), second.environment.get(part)) for part in parts]
    return [f"{part}: first {_told(a)}; second {_told(b)}" for part, a, b in facts if a != b]


def pairs(first: Run, second: Run) -> list[Pair]:
    """Every case that both runs have, in the order of the first.

    Raises:
        CompareError: they have no case in common.
    """
    theirs = {result.case: result.outcome for result in second.results}
    found = [
        Pair(result.case, a := result.outcome, b := theirs[result.case], _time(a.time_ms, b.time_ms),
             _over(a.stored_bytes, b.stored_bytes),
             _over(a.memory.above if a.memory else None, b.memory.above if b.memory else None))
        for result in first.results
        if result.case in theirs
    ]  # fmt: skip
    if not found:
        raise CompareError(f"{first.path} and {second.path} have no case in common")
    return found


def overall(found: Sequence[Pair]) -> Ratio | None:
    """The geometric mean of the times' ratios; its interval comes from how the pairs differ, drawn again and again."""
    logs = np.log([pair.time.value for pair in found if pair.time])
    if not len(logs):
        return None
    draws = np.random.default_rng(0).choice(logs, (_DRAWS, len(logs))).mean(axis=1)
    low, high = np.percentile(draws, _INTERVAL)
    return Ratio(math.exp(logs.mean()), math.exp(low), math.exp(high))


def sheets(found: Sequence[Pair]) -> list[Sheet]:
    """One table for each setting and mode."""
    places: dict[str, list[Pair]] = {}
    for pair in found:
        places.setdefault(f"{pair.case.setting}: {pair.case.mode}", []).append(pair)
    columns = ("case", "first (ms)", "second (ms)", "time, second / first", "stored", "peak", "")
    return [Sheet(title, columns, tuple(map(_row, here))) for title, here in places.items()]


def plain(found: Sequence[Pair]) -> dict[str, Any]:
    """Pairs and their mean as plain values."""
    mean = overall(found)
    rows = [
        {"case": pair.case.to_dict(), "ends": [pair.first.status, pair.second.status],
         "time": pair.time and vars(pair.time), "stored": pair.stored, "peak": pair.peak}
        for pair in found
    ]  # fmt: skip
    return {"pairs": rows, "time_geometric_mean": mean and vars(mean)}


def _identity(run: Run) -> Mapping[str, Any]:
    devices = ", ".join(run.devices)
    return {
        "device": None if "unknown" in devices else devices,
        "cores": run.fact("machine", "usable_cores"),
        "threads": run.fact("threads", "torch"),
    }


def _told(fact: Any) -> str:
    if isinstance(fact, Mapping):
        return ", ".join(f"{name} {_told(value)}" for name, value in fact.items())
    if isinstance(fact, list):
        return " ".join(map(str, fact))
    return "unknown" if fact is None else str(fact)


def _time(first: Times | None, second: Times | None) -> Ratio | None:
    """The ratio of both, and its interval: their margins, as logarithms, add up as squares."""
    if first is None or second is None:
        return None
    value, margin = second.p50 / first.p50, math.exp(math.hypot(*(math.log1p(t.margin) for t in (first, second))))
    return Ratio(value, value / margin, value * margin)


def _over(first: int | None, second: int | None) -> float | None:
    return second / first if first and second is not None else None


def _row(pair: Pair) -> tuple[str, ...]:
    medians = [number(o.time_ms.p50) if o.time_ms else ENDS.get(o.status, "-") for o in (pair.first, pair.second)]
    verdict = ("slower" if pair.time.value > 1 else "faster") if pair.time and pair.time.differs else ""
    shares = ("-" if share is None else f"{share:.3f}" for share in (pair.stored, pair.peak))
    return (f"{pair.case.mixer} {pair.case.frames}", *medians, str(pair.time or "-"), *shares, verdict)
