"""Measures cases one after another, each in a process of its own, and records each as soon as it has ended.  No torch.

What the record already holds from the same environment is not measured again: a sweep that was killed goes on where it
was, whenever that happened, and ends with the same set of records, none twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from temporal_zoo.record import Reading, Session, read

from . import apart, surroundings
from .case import Case
from .curves import Result
from .outcome import ENDS, Outcome
from .words import number, size


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a sweep runs.

    `budget_s`: seconds for the rounds of one case.  `limit_s`: after so many seconds a case is ended.  `until`: no case
    begins that might not have ended by then, by `time.monotonic`.  `again`: what is recorded already is measured once
    more.  `traces`: folder for a profile of every case.
    """

    budget_s: float = 1.5
    limit_s: float = 300.0
    until: float | None = None
    again: bool = False
    traces: Path | None = None


class Sweep:
    """Cases, their record, and which of them are done.

    Args:
        expected: part of the name that the device must have.
    Raises:
        BenchError: this machine cannot run the cases, or has another device; before anything is measured.
        OSError: the record cannot be written; likewise.
    """

    def __init__(self, cases: Sequence[Case], record: Path, terms: Terms, expected: str | None = None) -> None:
        self.cases, self.terms = tuple(cases), terms
        environment, self.place = apart.examine(cases, expected)
        self._session = Session(record, environment)
        self._sources = environment["code"]["sources"]
        known = {} if terms.again else outcomes(read(record), environment["id"])
        self.done = {case: known[case] for case in self.cases if case in known and self._traced(known[case])}

    @property
    def waiting(self) -> list[Case]:
        """Cases that are still to be measured, in order."""
        return [case for case in self.cases if case not in self.done]

    @property
    def results(self) -> list[Result]:
        """All that is known of the cases, in their order."""
        return [Result(case, self.done[case]) for case in self.cases if case in self.done]

    def run(self) -> Iterator[Result]:
        """Measures what waits and yields each result when it is recorded; ends early when its time is over.

        Raises:
            BenchError: the code was changed meanwhile.
        """
        for case in self.waiting:
            limit = self.terms.limit_s
            if self.terms.until is not None and time.monotonic() + limit + apart.GRACE_S > self.terms.until:
                return
            about = {"case": case.to_dict(), **surroundings.before(case.device)}
            trace = self.terms.traces and self.terms.traces / f"{case.label}.json"
            outcome = apart.measure(
                case, budget_s=self.terms.budget_s, limit_s=limit, trace=trace, sources=self._sources
            )
            if case.device.startswith("cuda"):
                about["device_after"] = surroundings.device_state(case.device)
            self._session.write("measurement", about | outcome.to_dict())
            self.done[case] = outcome
            yield Result(case, outcome)

    def _traced(self, outcome: Outcome) -> bool:
        traces = self.terms.traces
        return traces is None or outcome.status != "ok" or bool(outcome.trace and (traces / outcome.trace).exists())


def outcomes(reading: Reading, environment: str) -> dict[Case, Outcome]:
    """Case -> its last outcome among the records of one environment."""
    return {
        Case.from_dict(record["case"]): Outcome.from_dict(record)
        for record in reading.of("measurement")
        if record["environment"] == environment
    }


def summary(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.status != "ok":
        return f"{ENDS[outcome.status]}: {outcome.reason}"
    assert outcome.time_ms is not None
    stored = "" if outcome.stored_bytes is None else f", stores {size(outcome.stored_bytes)}"
    return f"{number(outcome.time_ms.p50)} ms ±{100 * outcome.time_ms.spread:.0f} %{stored}"
