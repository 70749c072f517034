"""Runs a sweep: measures every case in a subprocess and appends each outcome to the record.  No torch.

The second repetition begins when all cases have had their first one: the times of one case differ more between
processes than between rounds of one process, and processes that run minutes apart show more of the machine's changes.

A sweep can be resumed.  Measurements that the record has from the same environment are not repeated, so that a sweep
that was killed at any moment ends with the same set of records, without duplicates.
"""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from temporal_zoo._support.record import Session, read
from temporal_zoo._support.units import number, size

from . import machine_load, subprocess
from .case import Case
from .outcome import STATUS_WORDS, Outcome
from .repetitions import combine
from .results import CaseResult, complete_cases


@dataclass(frozen=True, kw_only=True)
class RunnerOptions:
    """How a sweep runs.

    Args:
        repetitions: processes for each case; a case whose outcome is not "ok" is not repeated.
        budget_s: seconds for the timed rounds of each process.
        limit_s: a process ends after this many seconds.
        until: no process starts that might end later than this (`time.monotonic`).
        again: repeats cases that the record already has.
        traces: folder for a profile of every case.
    """

    repetitions: int = 1
    budget_s: float = 0.4  # short, because processes differ more than rounds
    limit_s: float = 300.0
    until: float | None = None
    again: bool = False
    traces: Path | None = None


class Runner:
    """Runs the cases that the record does not have yet.

    Args:
        expected: a part of the name that the device must have.
    Raises:
        BenchError: this machine cannot run the cases, or has another device; nothing was measured.
        OSError: the record cannot be written; nothing was measured.
    """

    def __init__(
        self, cases: Sequence[Case], record: Path, options: RunnerOptions, expected: str | None = None
    ) -> None:
        self.cases, self.options = tuple(cases), options
        environment, self.devices = subprocess.examine(cases, expected)
        self._session = Session(record, environment)
        self._sources = environment["code"]["sources"]
        known = {} if options.again else complete_cases(read(record), environment["id"])
        self._outcomes = {case: known[case] for case in self.cases if case in known and self._has_trace(known[case][0])}

    @property
    def waiting(self) -> list[tuple[int, Case]]:
        """The processes that are still to run, in order: the repetition, from 1, and the case."""
        repetitions = range(1, self.options.repetitions + 1)
        return [(count, case) for count in repetitions for case in self.cases if self._waits(case, count)]

    @property
    def results(self) -> list[CaseResult]:
        """The results of all cases that have run, in the order of the cases."""
        return [self._result(case) for case in self.cases if case in self._outcomes]

    def run(self) -> Iterator[tuple[int, CaseResult]]:
        """Runs the waiting processes; yields each repetition with its case's result after it is in the record.

        Returns early when the time limit is reached.

        Raises:
            BenchError: the source files changed.
        """
        # Processes of one repetition have the same parent, and with it the same addresses of their code.
        for repetition, group in itertools.groupby(self.waiting, key=operator.itemgetter(0)):
            with subprocess.Workers(forks=all(case.device == "cpu" for case in self.cases)) as workers:
                for _, case in group:
                    if not self._waits(case, repetition):  # an earlier repetition failed
                        continue
                    if self._too_late():
                        return
                    self._measure(workers, case, repetition)
                    yield repetition, self._result(case)

    def _result(self, case: Case) -> CaseResult:
        return CaseResult(case, combine(self._outcomes[case]))

    def _measure(self, workers: subprocess.Workers, case: Case, repetition: int) -> None:
        fields = {"case": case.to_dict(), "repetition": repetition, **machine_load.before_case(case.device)}
        first = repetition == 1
        outcome = workers.measure(
            case,
            budget_s=self.options.budget_s,
            limit_s=self.options.limit_s,
            time_only=not first,
            trace=self.options.traces / f"{case.label}.json" if first and self.options.traces else None,
            sources=self._sources,
        )
        if case.device.startswith("cuda"):
            fields["device_after"] = machine_load.device_state(case.device)
        self._session.write("measurement", fields | outcome.to_dict())
        self._outcomes[case] = [*([] if first else self._outcomes[case]), outcome]

    def _too_late(self) -> bool:
        until = self.options.until
        return until is not None and time.monotonic() + self.options.limit_s + subprocess.GRACE_S > until

    def _waits(self, case: Case, repetition: int) -> bool:
        """Whether this repetition is still to run: all earlier ones are "ok", and there are fewer."""
        outcomes = self._outcomes.get(case, [])
        return len(outcomes) < repetition and all(outcome.status == "ok" for outcome in outcomes)

    def _has_trace(self, outcome: Outcome) -> bool:
        traces = self.options.traces
        return traces is None or outcome.status != "ok" or bool(outcome.trace and (traces / outcome.trace).exists())


def announcement(runner: Runner) -> str:
    """Number of cases and processes, and the device, in a sentence."""
    waiting, each = len(runner.waiting), runner.options.repetitions
    resumed = f"; {waiting} processes are still to run" if waiting < each * len(runner.cases) else ""
    return f"{len(runner.cases)} cases on {runner.devices}, {each} process{'es' * (each > 1)} each{resumed}"


def summary(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.status != "ok":
        return f"{STATUS_WORDS[outcome.status]}: {outcome.reason}"
    assert outcome.time_ms is not None
    stored = "" if outcome.stored_bytes is None else f", stores {size(outcome.stored_bytes)}"
    return f"{number(outcome.time_ms.p50)} ms ±{100 * outcome.time_ms.margin:.0f} %{stored}"
