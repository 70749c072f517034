"""Runs each case in a subprocess (`worker`); crashes, timeouts and out-of-memory become outcomes.  No torch."""

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

# A process ends itself at its time limit; this class kills it so much later, which includes the import of torch.
GRACE_S = 30.0
_POLL_S = 0.05
_EXAMINE_S = 300.0
_MAX_TRACE = 4000  # characters, from the end of standard error


class BenchError(InvalidInput):
    """A sweep cannot start; the message says why, and what would work."""


def examine(cases: Sequence[Case], expected: str | None = None) -> tuple[dict[str, Any], str]:
    """The environment of the subprocesses, and the names of their devices; see `machine.examine`.

    Raises:
        BenchError: a device, op or backend does not exist here, or the device is not the expected one.
    """
    # One case for each device and set of pins is enough.
    distinct = {(case.device, case.backends): case for case in cases}.values()
    job = {"task": "examine", "cases": [case.to_dict() for case in distinct], "expected": expected}
    with Workers(forks=False) as workers:
        answer, outcome = workers.ask(job, limit_s=_EXAMINE_S, max_bytes=host_memory.allowance())
    if answer is None:
        raise BenchError(f"subprocesses cannot run here: {outcome.reason}")
    if "refused" in answer:
        raise BenchError(answer["refused"])
    return answer["environment"], answer["devices"]


class Workers:
    """Runs every job in a fresh process; use it in a `with` block.

    Args:
        forks: forks each process from one that has only imported torch, because that import takes longer than most
            cases.  This works on Linux.  It is not safe for CUDA, whose driver an import may have started.
    """

    def __init__(self, *, forks: bool) -> None:
        self._forks = forks and sys.platform.startswith("linux")
        self._process: subprocess.Popen[str] | None = None
        self._job: int | None = None  # id of the process that runs the job
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._stderr: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()  # the job may run in a forked process
        if self._process is not None:
            self._process.kill()
            self._wait(self._process)
        self._stderr.close()

    def measure(
        self,
        case: Case,
        *,
        budget_s: float,
        limit_s: float,
        time_only: bool = False,
        trace: Path | None = None,
        sources: str | None = None,
    ) -> Outcome:
        """Runs `case` in a fresh process, with limits of time and memory.

        Args:
            budget_s: seconds for the timed rounds (`measure.time_ms`).
            limit_s: seconds after which the process ends.
            time_only: skips the comparison with the reference, the peak and the stored bytes.
            trace: file for a profile of one more step.
            sources: the digest that the source files must have, so that the record names the code that ran.
        Raises:
            BenchError: the source files have another digest.
        """
        max_bytes = host_memory.allowance()
        job = {"task": "measure", "case": case.to_dict(), "budget_s": budget_s, "time_only": time_only,
               "max_bytes": max_bytes, "trace": str(trace) if trace else None, "sources": sources}  # fmt: skip
        answer, outcome = self.ask(job, limit_s=limit_s, max_bytes=max_bytes)
        if answer is None:
            return outcome
        if "refused" in answer:
            raise BenchError(answer["refused"])
        return Outcome.from_dict(answer)

    def ask(self, job: dict[str, Any], *, limit_s: float, max_bytes: int) -> tuple[dict[str, Any] | None, Outcome]:
        """The answer of a fresh process to a job, or None and its outcome."""
        process, answer, killed = self._running(), None, None
        self._stderr.seek(0)
        self._stderr.truncate()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended; the loop below sees that
            process.stdin.write(json.dumps(job | {"limit_s": limit_s}) + "\n")
            process.stdin.flush()
        deadline = time.monotonic() + limit_s + GRACE_S
        while True:
            try:
                line = self._lines.get(timeout=_POLL_S)
            except queue.Empty:
                if killed := killed or self._beyond_limits(deadline, limit_s + GRACE_S, max_bytes):
                    self._kill()
                continue
            if line is None:
                code = self._wait(process)
                break
            try:
                message = json.loads(line)
            except ValueError:  # a part of an answer
                continue
            self._job = message.get("pid", self._job)
            answer = message.get("answer", answer)
            if "code" in message:
                code, self._job = message["code"], None
                break
        if answer is not None:
            return answer, Outcome("ok")
        self._stderr.seek(0)
        return None, killed or _outcome_of_exit(code, self._stderr.read(), limit_s)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            # The subprocess searches for modules in the same folders as this process.
            source = f"import sys; sys.path[:] = {sys.path!r}; from bench.sweep.worker import main; "
            source += f"main(forks={self._forks}, parent={os.getpid()})"
            self._process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, text=True,
                                             stdout=subprocess.PIPE, stderr=self._stderr, encoding="utf-8")  # fmt: skip
            threading.Thread(target=_forward_lines, args=(self._process.stdout, self._lines), daemon=True).start()
        return self._process

    def _wait(self, process: subprocess.Popen[str]) -> int:
        """Waits for the end of a process; returns its exit code."""
        code = process.wait()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        self._process = self._job = None
        return code

    def _beyond_limits(self, deadline: float, seconds: float, max_bytes: int) -> Outcome | None:
        """The outcome of a job that uses too much time or memory; None for others."""
        if self._job is not None and (resident := _resident(self._job)) > max_bytes:
            return Outcome("out_of_memory", f"killed at {resident:,} bytes; the limit is {max_bytes:,} bytes")
        if time.monotonic() > deadline:
            return Outcome("timed_out", f"killed after {seconds:.0f} s")
        return None

    def _kill(self) -> None:
        if self._job is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._job, signal.SIGKILL)
        elif self._process is not None:
            self._process.kill()


def _forward_lines(lines: IO[str], to: queue.Queue[str | None]) -> None:
    """Puts every line into the queue, and None at the end."""
    with lines:
        for line in lines:
            to.put(line)
    to.put(None)


def _resident(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:  # the process has ended
        return 0


def _outcome_of_exit(code: int, stderr: str, limit_s: float) -> Outcome:
    """The outcome of a process that ended without an answer, from its exit code and standard error."""
    trace = stderr[-_MAX_TRACE:]
    if "Timeout (" in stderr and code == 1:
        return Outcome("timed_out", f"took longer than {limit_s:g} s", traceback=trace)
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        return Outcome("out_of_memory", f"the system killed the process ({name}), as it does when memory runs out")
    if any(words in stderr for words in ("MemoryError", "std::bad_alloc", "can't allocate memory")):
        return Outcome("out_of_memory", f"the process ended ({name}) because memory ran out", traceback=trace)
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
    reason = f"the process crashed ({name})" if code < 0 else f"the process ended without an answer ({name}): {last}"
    return Outcome("crashed", reason, traceback=trace)
