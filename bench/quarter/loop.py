"""Keeps a quarter to its minutes: which case is next, whether it fits, and what happens when its process ends.

A case begins only if its estimate fits into what is left.  Measured durations correct the estimates of their kind.
Torch-free.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .cases import Agreed, Case, Group
from .results import CUT_OFF, FAULTS, Book

# A case that takes so many times its estimate hangs, but no case is ended before the second number of seconds.
_FAR_LONGER, _LEAST_LIMIT_S = 5.0, 45.0
# Seconds until a process has imported torch and reached the device, before one was measured.
_START_S = 12.0


class Child(Protocol):
    """A process that measures."""

    def ask(self, job: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """The answer to a job; where the process crashed or was ended after the limit, an outcome that says so."""

    def close(self) -> None:
        """Ends the process."""


class Plans(Protocol):
    """What is planned for training steps (`bench.plan.plan`), while others are measured."""

    def expect(self, cases: Sequence[Case]) -> None:
        """Begins to plan."""

    def of(self, case: Case) -> dict[str, Any] | None:
        """The plan of a case: `peak` bytes and `fit`; None where there is none."""


@dataclass
class Pace:
    """Estimates of durations, corrected by measured ones."""

    start_s: float = _START_S
    _spent: dict[str, tuple[float, float]] = field(default_factory=dict)

    def seconds(self, case: Case, book: Book) -> float:
        """How long a case will take; an attempt that ended without an answer was too short by half at least."""
        measured, estimated = self._spent.get(case.kind, (1.0, 1.0))
        cut = [1.5 * line["seconds"] for line in book.attempts(case) if line["outcome"] in (CUT_OFF, "timed_out")]
        return max(case.estimate_s * measured / estimated, *cut, 0.0)

    def learn(self, case: Case, seconds: float) -> None:
        """Takes in what a case took."""
        # The first case is weighed against the estimate itself, so that a single odd one does not decide.
        measured, estimated = self._spent.get(case.kind, (case.estimate_s, case.estimate_s))
        self._spent[case.kind] = (measured + seconds, estimated + case.estimate_s)


class Quarter:
    """One call: groups of cases until a moment.

    Args:
        start: makes a process that is ready to measure.
        child: one that is ready already, or None.
        until: the end, by `now`.
        talk: hears a line for each case.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        book: Book,
        start: Callable[[], Child],
        plans: Plans,
        *,
        until: float,
        child: Child | None = None,
        now: Callable[[], float] = time.monotonic,
        talk: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.groups, self.book, self.pace = groups, book, Pace()
        self._start, self._child, self._plans = start, child, plans
        self._until, self._now, self._talk = until, now, talk

    def run(self) -> bool:
        """Measures what fits; returns whether all is done.

        First every group has its turn, within its `most_s`; then what was left over, and what failed once.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            for again in (False, True):
                for place, group in enumerate(self.groups):
                    self._turn(group, again=again)
                    if place == 0 and not again:
                        self._plans.expect(self._waiting(again=False))
        return not self._waiting(again=True)

    def _cases(self, group: Group) -> list[Case]:
        agreed: Agreed = self.book.agreed()
        return group.cases(agreed)

    def _waiting(self, *, again: bool) -> list[Case]:
        return [
            case for group in self.groups for case in self._cases(group) if not self.book.finished(case, again=again)
        ]

    def _turn(self, group: Group, *, again: bool) -> None:
        end = self._until
        if group.most_s is not None and not again:
            end = min(end, self._now() + group.most_s)
        waiting = [case for case in self._cases(group) if not self.book.finished(case, again=again)]
        if not waiting:
            return
        self._talk(f"{group.name}: {len(waiting)} cases, {(self._until - self._now()) / 60:.1f} minutes left")
        for case in waiting:
            self._measure(case, end)
        self._close()

    def _measure(self, case: Case, end: float) -> None:
        estimate = self.pace.seconds(case, self.book)
        if not self._fits(estimate, end):
            return
        plan = self._plans.of(case)
        if plan is not None and plan.get("fit") == "no":
            self._write(case, {"outcome": "too_large", "planned": plan}, 0.0, estimate)
            return
        if not self._fits(estimate, end):  # any more: the plan was waited for
            return
        child = self._ready()
        limit = min(max(_FAR_LONGER * estimate, _LEAST_LIMIT_S), max(self._until - self._now(), 1.0))
        begun = self._now()
        answer = child.ask(self._job(case), limit)
        seconds = self._now() - begun
        if answer["outcome"] in ("crashed", "timed_out"):
            self._close()
        if answer["outcome"] == "timed_out" and self._now() >= self._until:
            answer = answer | {"outcome": CUT_OFF, "reason": "the minutes of the call were over"}
        if answer["outcome"] == "ok":
            self.pace.learn(case, seconds)
        about = {"pins": list(case.pins)} if case.pins else {}
        self._write(case, answer | about | ({} if plan is None else {"planned": plan}), seconds, estimate)

    def _fits(self, estimate: float, end: float) -> bool:
        start = 0.0 if self._child is not None else self.pace.start_s
        return self._now() + start + estimate <= end

    def _job(self, case: Case) -> dict[str, Any]:
        """What the process is told: the case, and what ended the process of an attempt before."""
        ended = [line["during"] for line in self.book.attempts(case) if line["outcome"] in FAULTS and line["during"]]
        return {"kind": case.kind, "what": case.asked, "without": ended}

    def _write(self, case: Case, answer: Mapping[str, Any], seconds: float, estimate: float) -> None:
        self.book.write(case, answer, seconds, estimate)
        reason = f": {answer['reason']}" if answer.get("reason") else ""
        told = f"  {case}: {answer['outcome']}{reason}"
        self._talk(f"{told.splitlines()[0][:200]} ({seconds:.1f} s)")

    def _ready(self) -> Child:
        if self._child is None:
            begun = self._now()
            self._child = self._start()
            self.pace.start_s = self._now() - begun
        return self._child

    def _close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
