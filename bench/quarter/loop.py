"""Runs cases within a time budget, and handles the end of child processes.

A case starts only if its estimated duration fits into the remaining time.  Measured durations correct the estimates of
the same kind.  Torch-free.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .cases import Agreed, GpuCase, Group
from .results import CUT_OFF, FAULTS, GpuResults

# The time limit of a case is a multiple of its estimate, and at least some seconds.
_LIMIT_FACTOR, _MIN_LIMIT_S = 5.0, 45.0
# Estimated seconds in which a process imports torch and initialises the device, before the first measurement.
_START_S = 12.0


class Child(Protocol):
    """A child process that measures."""

    def ask(self, job: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Sends a job and returns the answer; a crash or a timeout is an answer with that outcome."""

    def close(self) -> None:
        """Ends the process."""


class PlanSource(Protocol):
    """Plans of training steps (`bench.plan.plan`), counted while other cases are measured."""

    def expect(self, cases: Sequence[GpuCase]) -> None:
        """Starts to plan the cases."""

    def of(self, case: GpuCase) -> dict[str, Any] | None:
        """The plan of a case, with `peak` bytes and `fit`; None for a case without a plan."""


@dataclass
class Durations:
    """Estimated durations, corrected by measured durations."""

    start_s: float = _START_S
    _spent: dict[str, tuple[float, float]] = field(default_factory=dict)

    def seconds(self, case: GpuCase, results: GpuResults) -> float:
        """The estimated duration of a case: at least 1.5 times that of an attempt which the limit ended."""
        measured, estimated = self._spent.get(case.kind, (1.0, 1.0))
        attempts = results.attempts(case)
        cut = [1.5 * each["seconds"] for each in attempts if each["outcome"] in (CUT_OFF, "timed_out")]
        return max(case.estimate_s * measured / estimated, *cut, 0.0)

    def learn(self, case: GpuCase, seconds: float) -> None:
        """Corrects the estimates of its kind by the duration of a case."""
        # The first estimate counts like a measurement, so that one unusual duration has less effect.
        measured, estimated = self._spent.get(case.kind, (case.estimate_s, case.estimate_s))
        self._spent[case.kind] = (measured + seconds, estimated + case.estimate_s)


class BudgetedRun:
    """One run of the command: measures groups of cases until a deadline.

    Args:
        start: starts a child process that is ready to measure.
        child: a child process that is already ready, or None.
        until: the deadline, in the time of `now`.
        report: receives a line for each case.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        results: GpuResults,
        start: Callable[[], Child],
        plans: PlanSource,
        *,
        until: float,
        child: Child | None = None,
        now: Callable[[], float] = time.monotonic,
        report: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.groups, self.results, self.durations = groups, results, Durations()
        self._start, self._child, self._plans = start, child, plans
        self._until, self._now, self._report = until, now, report

    def run(self) -> bool:
        """Measures the cases that fit; returns whether all cases are done.

        First every group has a turn, limited by its `most_s`.  Then the remaining cases follow, and those that failed
        once.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            for again in (False, True):
                for index, group in enumerate(self.groups):
                    self._turn(group, again=again)
                    if index == 0 and not again:
                        self._plans.expect(self._waiting(again=False))
        return not self._waiting(again=True)

    def _cases(self, group: Group) -> list[GpuCase]:
        agreed: Agreed = self.results.agreed()
        return group.cases(agreed)

    def _waiting(self, *, again: bool) -> list[GpuCase]:
        return [
            case for group in self.groups for case in self._cases(group) if not self.results.finished(case, again=again)
        ]

    def _turn(self, group: Group, *, again: bool) -> None:
        end = self._until
        if group.most_s is not None and not again:
            end = min(end, self._now() + group.most_s)
        waiting = [case for case in self._cases(group) if not self.results.finished(case, again=again)]
        if not waiting:
            return
        self._report(f"{group.name}: {len(waiting)} cases, {(self._until - self._now()) / 60:.1f} minutes left")
        for case in waiting:
            self._measure(case, end)
        self._close()

    def _measure(self, case: GpuCase, end: float) -> None:
        estimate = self.durations.seconds(case, self.results)
        if not self._fits(estimate, end):
            return
        plan = self._plans.of(case)
        if plan is not None and plan.get("fit") == "no":
            self._write(case, {"outcome": "too_large", "planned": plan}, 0.0, estimate)
            return
        if not self._fits(estimate, end):  # checked again, because the plan may have taken time
            return
        child = self._ready()
        limit = min(max(_LIMIT_FACTOR * estimate, _MIN_LIMIT_S), max(self._until - self._now(), 1.0))
        start = self._now()
        answer = child.ask(self._job(case), limit)
        seconds = self._now() - start
        if answer["outcome"] in ("crashed", "timed_out"):
            self._close()
        if answer["outcome"] == "timed_out" and self._now() >= self._until:
            answer = answer | {"outcome": CUT_OFF, "reason": "the time budget was used up"}
        if answer["outcome"] == "ok":
            self.durations.learn(case, seconds)
        about = {"pins": list(case.pins)} if case.pins else {}
        self._write(case, answer | about | ({} if plan is None else {"planned": plan}), seconds, estimate)

    def _fits(self, estimate: float, end: float) -> bool:
        start = 0.0 if self._child is not None else self.durations.start_s
        return self._now() + start + estimate <= end

    def _job(self, case: GpuCase) -> dict[str, Any]:
        """The job of the child process: the case, and the parts that ended the process of an earlier attempt."""
        ended = [line["during"] for line in self.results.attempts(case) if line["outcome"] in FAULTS and line["during"]]
        return {"kind": case.kind, "what": case.request, "without": ended}

    def _write(self, case: GpuCase, answer: Mapping[str, Any], seconds: float, estimate: float) -> None:
        self.results.write(case, answer, seconds, estimate)
        reason = f": {answer['reason']}" if answer.get("reason") else ""
        line = f"  {case}: {answer['outcome']}{reason}"
        self._report(f"{line.splitlines()[0][:200]} ({seconds:.1f} s)")

    def _ready(self) -> Child:
        if self._child is None:
            start = self._now()
            self._child = self._start()
            self.durations.start_s = self._now() - start
        return self._child

    def _close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
