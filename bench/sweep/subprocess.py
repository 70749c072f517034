"""Each case in a process of its own, watched from here: whatever it does there, its end is an outcome.  No torch."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

import psutil

from temporal_zoo.errors import InvalidInput

from . import host_memory
from .case import Case
from .outcome import Outcome

# A process ends itself at its limit; this much later, torch's import included, it is ended from here.
GRACE_S = 30.0
_LOOK_S = 0.05
_EXAMINE_S = 300.0
_TAIL = 4000  # characters of standard error that are kept


class BenchError(InvalidInput):
    """A sweep that cannot start; the message says what would be accepted."""


def examine(cases: Sequence[Case], expected: str | None = None) -> tuple[dict[str, Any], str]:
    """The environment of a process that measures, and its device in words.

    Raises:
        BenchError: this machine has no such device, op or backend, or another device than the expected one.
    """
    # One case for each device and set of pins says as much as all of them.
    few = {(case.device, case.backends): case for case in cases}.values()
    job = {"task": "examine", "cases": [case.to_dict() for case in few], "expected": expected}
    with Workers(forks=False) as workers:
        answer, end = workers.ask(job, limit_s=_EXAMINE_S, most_bytes=host_memory.allowance())
    if answer is None:
        raise BenchError(f"no process can measure here: {end.reason}")
    if "refused" in answer:
        raise BenchError(answer["refused"])
    return answer["environment"], answer["place"]


class Workers:
    """Gives every job a fresh process; to be closed, or used in a `with` block.

    Args:
        forks: a process is forked from one that has imported torch and done nothing else, instead of being started from
            nothing.  Torch takes longer to start than most cases to measure.  Only where forking is safe, on Linux, and
            not for CUDA, whose driver may have been touched by an import.
    """

    def __init__(self, *, forks: bool) -> None:
        self._forks = forks and sys.platform.startswith("linux")
        self._process: subprocess.Popen[str] | None = None
        self._job: int | None = None  # number of the process that works on a job
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._told: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()  # the job, which may be another process
        if self._process is not None:
            self._process.kill()
            self._end_process(self._process)
        self._told.close()

    def measure(
        self,
        case: Case,
        *,
        budget_s: float,
        limit_s: float,
        clock_only: bool = False,
        trace: Path | None = None,
        sources: str | None = None,
    ) -> Outcome:
        """Runs `case` in a fresh process, which must end after `limit_s` seconds and not take nearly all memory.

        Args:
            budget_s: seconds for the rounds of the clock (`measure.time_ms`).
            clock_only: no gate and no memory, for a case that has passed both.
            trace: file for a profile of one more step.
            sources: digest that our source files must have, so that a record names the code that ran.
        Raises:
            BenchError: the source files are others.
        """
        most = host_memory.allowance()
        job = {"task": "measure", "case": case.to_dict(), "budget_s": budget_s, "clock_only": clock_only,
               "most_bytes": most, "trace": str(trace) if trace else None, "sources": sources}  # fmt: skip
        answer, end = self.ask(job, limit_s=limit_s, most_bytes=most)
        if answer is None:
            return end
        if "refused" in answer:
            raise BenchError(answer["refused"])
        return Outcome.from_dict(answer)

    def ask(self, job: dict[str, Any], *, limit_s: float, most_bytes: int) -> tuple[dict[str, Any] | None, Outcome]:
        """The answer of a fresh process to a job, or None and how it ended instead."""
        process, answer, stopped = self._running(), None, None
        self._told.seek(0)
        self._told.truncate()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is seen below
            process.stdin.write(json.dumps(job | {"limit_s": limit_s}) + "\n")
            process.stdin.flush()
        deadline = time.monotonic() + limit_s + GRACE_S
        while True:
            try:
                line = self._lines.get(timeout=_LOOK_S)
            except queue.Empty:
                if stopped := stopped or self._trouble(deadline, limit_s + GRACE_S, most_bytes):
                    self._kill()
                continue
            if line is None:
                code = self._end_process(process)
                break
            try:
                message = json.loads(line)
            except ValueError:  # half an answer
                continue
            self._job = message.get("pid", self._job)
            answer = message.get("answer", answer)
            if "code" in message:
                code, self._job = message["code"], None
                break
        if answer is not None:
            return answer, Outcome("ok")
        self._told.seek(0)
        return None, stopped or _end(code, self._told.read(), limit_s)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            # It looks for modules exactly where this process does.
            source = f"import sys; sys.path[:] = {sys.path!r}; from bench.sweep.worker import main; "
            source += f"main(forks={self._forks}, parent={os.getpid()})"
            self._process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, text=True,
                                             stdout=subprocess.PIPE, stderr=self._told, encoding="utf-8")  # fmt: skip
            threading.Thread(target=_hand_on, args=(self._process.stdout, self._lines), daemon=True).start()
        return self._process

    def _end_process(self, process: subprocess.Popen[str]) -> int:
        """Waits until it has ended, as it must, and returns its exit code."""
        code = process.wait()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        self._process = self._job = None
        return code

    def _trouble(self, deadline: float, seconds: float, most_bytes: int) -> Outcome | None:
        """An outcome when the job has to be ended."""
        if self._job is not None and (resident := _resident(self._job)) > most_bytes:
            return Outcome("out_of_memory", f"ended at {resident:,} bytes, of {most_bytes:,} that it could have")
        if time.monotonic() > deadline:
            return Outcome("timed_out", f"had to be ended after {seconds:.0f} s")
        return None

    def _kill(self) -> None:
        if self._job is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._job, signal.SIGKILL)
        elif self._process is not None:
            self._process.kill()


def _hand_on(lines: IO[str], to: queue.Queue[str | None]) -> None:
    """Every line, and None at the end."""
    with lines:
        for line in lines:
            to.put(line)
    to.put(None)


def _resident(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:  # it ended meanwhile
        return 0


def _end(code: int, told: str, limit_s: float) -> Outcome:
    """What the exit code and the last words of a process say about its end."""
    trace = told[-_TAIL:]
    if "Timeout (" in told and code == 1:
        return Outcome("timed_out", f"took longer than {limit_s:g} s", traceback=trace)
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        return Outcome("out_of_memory", f"the system ended the process ({name}), as it does when memory runs out")
    if any(words in told for words in ("MemoryError", "std::bad_alloc", "can't allocate memory")):
        return Outcome("out_of_memory", f"the process ended ({name}) for want of memory", traceback=trace)
    last = next((line for line in reversed(told.splitlines()) if line.strip()), "")
    reason = f"the process crashed ({name})" if code < 0 else f"the process ended without an answer ({name}): {last}"
    return Outcome("crashed", reason, traceback=trace)
