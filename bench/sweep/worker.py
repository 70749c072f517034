"""The program of the subprocesses: reads jobs from standard input and writes answers, one line of JSON each.

    {"task": "examine", "cases": [...], "expected": null}      -> {"environment": ..., "devices": ...}
    {"task": "measure", "case": {...}, "budget_s": 1.5, ...}   -> an outcome

An error of the user is the answer {"refused": message}.  For every job the program writes {"pid": ...} and
{"answer": ...}; if it forks, it also writes {"code": ...}, the exit code of the forked process.  A process ends itself
at its time limit, also while C++ code runs, and writes its Python stack to standard error.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(*, forks: bool, parent: int) -> None:
    """Runs one job and exits; or forks a process for every job, so that torch is imported only once.

    Args:
        forks: forks a process for every job.
        parent: id of the process that reads the answers; all processes end when it ends.
    """
    from temporal_zoo._support.processes import end_with_parent

    end_with_parent(parent)
    # Other packages may print to standard output, which must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    # Before the forks, because every process needs these imports.
    from temporal_zoo._support.arithmetic import set_arithmetic

    from . import run_case  # noqa: F401

    set_arithmetic()

    def send(**message: object) -> None:
        # The first line break ends a part of an answer that a killed process may have written.
        answers.write(f"\n{json.dumps(message, allow_nan=False)}\n")
        answers.flush()

    this = os.getpid()
    for line in sys.stdin:
        job = json.loads(line)
        if forks and (child := os.fork()):
            _, status = os.waitpid(child, 0)
            send(code=os.waitstatus_to_exitcode(status))
            continue
        if forks:
            end_with_parent(this)
        send(pid=os.getpid())
        faulthandler.dump_traceback_later(job["limit_s"], exit=True)
        send(answer={"examine": _examine, "measure": _measure}[job["task"]](job))
        # Skips the interpreter's shutdown, in which drivers and thread pools may crash.
        os._exit(0)


def _examine(job: dict[str, Any]) -> dict[str, Any]:
    from temporal_zoo.errors import UserError

    from .case import Case
    from .machine import examine

    try:
        machine = examine([Case.from_dict(values) for values in job["cases"]], job["expected"])
    except UserError as error:
        return {"refused": str(error)}
    return {"environment": machine.environment, "devices": machine.devices}


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    from temporal_zoo._support.environment import code

    from .case import Case
    from .run_case import run_case

    if job["sources"] not in (None, code()["sources"]):
        return {"refused": "the source files changed during the sweep; run the command again to use the new code"}
    trace = Path(job["trace"]) if job["trace"] else None
    case = Case.from_dict(job["case"])
    outcome = run_case(
        case, budget_s=job["budget_s"], time_only=job["time_only"], max_bytes=job["max_bytes"], trace=trace
    )
    return outcome.to_dict()
