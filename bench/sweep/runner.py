"""Measures cases one after another, each in a process of its own, and records each as soon as it has ended.  No torch.

When all have had their turn, the next repetition begins: processes of one case differ by more than rounds of one, and
the further apart they lie, the more they see of what else goes on.

What the record already holds from the same environment is not measured again: a sweep that was killed goes on where it
was, whenever that happened, and ends with the same set of records, none twice.
"""

from __future__ import annotations

import itertools
import logging
import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.curves import Result
from temporal_zoo._support.record import Reading, Session, read
from temporal_zoo._support.units import number, size

from . import load as surroundings
from . import subprocess as apart
from .case import Case
from .outcome import ENDS, Outcome
from .repetitions import by_case, measurements, together

log = logging.getLogger("temporal_zoo.bench")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a sweep runs.

    `repetitions`: processes of every case; one that ends in any other way than "ok" is not repeated.  `budget_s`:
    seconds for the rounds of each.  `limit_s`: after so many seconds a process is ended.  `until`: none begins that
    might not have ended by then, by `time.monotonic`.  `again`: what is recorded already is measured anew.  `traces`:
    folder for a profile of every case.
    """

    repetitions: int = 1
    budget_s: float = 0.4  # short, since processes differ by more than rounds do
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
        self._done = {case: known[case] for case in self.cases if case in known and self._traced(known[case][0])}

    @property
    def waiting(self) -> list[tuple[int, Case]]:
        """Repetitions, counted from one, and the cases that they are still to measure, in order."""
        counts = range(1, self.terms.repetitions + 1)
        return [(count, case) for count in counts for case in self.cases if self._waits(case, count)]

    @property
    def results(self) -> list[Result]:
        """All that is known of the cases, in their order."""
        return [Result(case, together(self._done[case])) for case in self.cases if case in self._done]

    def run(self) -> Iterator[tuple[int, Result]]:
        """Measures what waits; yields repetitions and what is known of their case when it is recorded.

        Ends early when its time is over.

        Raises:
            BenchError: the code was changed meanwhile.
        """
        # Processes of one repetition share a parent, and with it where their code lies in memory.
        for repetition, here in itertools.groupby(self.waiting, key=operator.itemgetter(0)):
            with apart.Workers(forks=all(case.device == "cpu" for case in self.cases)) as workers:
                for _, case in here:
                    if not self._waits(case, repetition):  # it failed meanwhile
                        continue
                    if self._too_late():
                        return
                    self._measure(workers, case, repetition)
                    yield repetition, Result(case, together(self._done[case]))

    def _measure(self, workers: apart.Workers, case: Case, repetition: int) -> None:
        about = {"case": case.to_dict(), "repetition": repetition, **surroundings.before(case.device)}
        first = repetition == 1
        outcome = workers.measure(
            case,
            budget_s=self.terms.budget_s,
            limit_s=self.terms.limit_s,
            clock_only=not first,
            trace=self.terms.traces / f"{case.label}.json" if first and self.terms.traces else None,
            sources=self._sources,
        )
        if case.device.startswith("cuda"):
            about["device_after"] = surroundings.device_state(case.device)
        self._session.write("measurement", about | outcome.to_dict())
        self._done[case] = [*([] if first else self._done[case]), outcome]

    def _too_late(self) -> bool:
        until = self.terms.until
        return until is not None and time.monotonic() + self.terms.limit_s + apart.GRACE_S > until

    def _waits(self, case: Case, repetition: int) -> bool:
        """Whether a repetition of a case is still to be measured: one that was no success is not repeated."""
        done = self._done.get(case, [])
        return len(done) < repetition and all(outcome.status == "ok" for outcome in done)

    def _traced(self, outcome: Outcome) -> bool:
        traces = self.terms.traces
        return traces is None or outcome.status != "ok" or bool(outcome.trace and (traces / outcome.trace).exists())


def outcomes(reading: Reading, environment: str) -> dict[Case, list[Outcome]]:
    """Case -> how its repetitions ended, among the records of one environment.

    A case whose first repetition is lost is not among them: that one alone counts memory and checks the results.
    """
    usable, wrong = measurements(reading)
    for reason in wrong[len(reading.damaged) :]:
        log.warning("a measurement was left out: %s", reason)
    found = by_case(line for line in usable if line["environment"] == environment)
    whole = {case: lines for case, lines in found.items() if lines[0].get("repetition", 1) == 1}
    return {case: [Outcome.from_dict(line) for line in lines] for case, lines in whole.items()}


def beginning(sweep: Sweep) -> str:
    """What a sweep is about to do, in a sentence."""
    waiting, each = len(sweep.waiting), sweep.terms.repetitions
    known = f"; {waiting} processes are still to run" if waiting < each * len(sweep.cases) else ""
    return f"{len(sweep.cases)} cases on {sweep.place}, {each} process{'es' * (each > 1)} each{known}"


def summary(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.status != "ok":
        return f"{ENDS[outcome.status]}: {outcome.reason}"
    assert outcome.time_ms is not None
    stored = "" if outcome.stored_bytes is None else f", stores {size(outcome.stored_bytes)}"
    return f"{number(outcome.time_ms.p50)} ms ±{100 * outcome.time_ms.margin:.0f} %{stored}"
