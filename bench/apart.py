"""One case in a process of its own, watched from here: whatever it does to itself, its end is an outcome.  No torch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from . import host_memory
from .case import Case
from .outcome import Outcome

# The process ends itself at its limit, which begins when torch is there; this much later it is ended from here.
GRACE_S = 30.0
_LOOK_S = 0.05
_EXAMINE_S = 300.0
_TAIL = 4000  # characters of standard error that are kept


class BenchError(ValueError):
    """A sweep that cannot start; the message says what would be accepted."""


def examine(cases: Sequence[Case], expected: str | None = None) -> tuple[dict[str, Any], str]:
    """The environment of a process that measures, and its device in words.

    Raises:
        BenchError: this machine has no such device, op or body, or another device than the expected one.
    """
    # One case for each device and set of pins says as much as all of them.
    few = {(case.device, case.backends): case for case in cases}.values()
    job = {"task": "examine", "cases": [case.to_dict() for case in few], "expected": expected}
    answer, end = _ask(job, limit_s=_EXAMINE_S, most_bytes=host_memory.allowance())
    if answer is None:
        raise BenchError(f"no process can measure here: {end.reason}")
    if "refused" in answer:
        raise BenchError(answer["refused"])
    return answer["environment"], answer["place"]


def measure(
    case: Case, *, budget_s: float, limit_s: float, trace: Path | None = None, sources: str | None = None
) -> Outcome:
    """Runs `case` in a fresh process, which must end `limit_s` seconds after its start and not take nearly all memory.

    Args:
        budget_s: seconds for the rounds of the clock (`measure.time_ms`).
        trace: file for a profile of one more step.
        sources: digest that our source files must have, so that a record names the code that ran.
    Raises:
        BenchError: the source files are others.
    """
    most = host_memory.allowance()
    job = {"task": "measure", "case": case.to_dict(), "budget_s": budget_s, "most_bytes": most,
           "trace": str(trace) if trace else None, "sources": sources}  # fmt: skip
    answer, end = _ask(job, limit_s=limit_s, most_bytes=most)
    if answer is None:
        return end
    if "refused" in answer:
        raise BenchError(answer["refused"])
    return Outcome.from_dict(answer)


def _ask(job: dict[str, Any], *, limit_s: float, most_bytes: int) -> tuple[dict[str, Any] | None, Outcome]:
    """The answer of a fresh process to a job, or None and how it ended instead."""
    # It looks for modules exactly where this process does.
    source = f"import sys; sys.path[:] = {sys.path!r}; from bench.worker import main; main()"
    with (
        tempfile.TemporaryFile("w+") as job_file,
        tempfile.TemporaryFile("w+") as said,
        tempfile.TemporaryFile("w+", errors="replace") as told,
    ):
        json.dump(job | {"limit_s": limit_s, "grace_s": GRACE_S}, job_file)
        job_file.seek(0)
        process = subprocess.Popen([sys.executable, "-c", source], stdin=job_file, stdout=said, stderr=told)
        try:
            stopped = _watch(process, limit_s + GRACE_S, most_bytes)
        finally:
            process.kill()  # does nothing to one that has ended
            code = process.wait()
        try:
            return json.loads(_text(said)), Outcome("ok")
        except ValueError:  # no answer, or half of one
            return None, stopped or _end(code, _text(told), limit_s)


def _watch(process: subprocess.Popen[bytes], seconds: float, most_bytes: int) -> Outcome | None:
    """Waits for the end of a process; returns an outcome when it had to be ended, which is left to the caller."""
    deadline = time.monotonic() + seconds
    seen = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            if (resident := _resident(seen)) > most_bytes:
                return Outcome("out_of_memory", f"ended at {resident:,} bytes, of {most_bytes:,} that it could have")
            if time.monotonic() > deadline:
                return Outcome("timed_out", f"had to be ended after {seconds:.0f} s")
    return None


def _resident(seen: psutil.Process) -> int:
    try:
        return seen.memory_info().rss
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


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
