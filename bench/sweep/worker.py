"""The process of a case: reads jobs from standard input, a line of JSON each, and answers in lines of JSON.

    {"task": "examine", "cases": [...], "expected": null}      -> {"environment": ..., "place": ...} or {"refused": ...}
    {"task": "measure", "case": {...}, "budget_s": 1.5, ...}   -> an outcome or {"refused": ...}

It says {"pid": ...}, {"answer": ...} and, where it forks, {"code": ...} when that process has ended.  A job's process
ends itself at its limit, also where no Python can run any more, and tells on standard error where it was.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(*, forks: bool, parent: int) -> None:
    """Does one job and ends; or forks a process for every job, so that only the first has to wait for torch.

    All of them end with the process `parent`, which reads the answers.
    """
    from temporal_zoo._support.processes import end_with_parent

    end_with_parent(parent)
    # What packages print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    # Every process would need them; operators of torch.library import Dynamo when they are first called.

    from temporal_zoo._support.arithmetic import set_arithmetic

    from . import run_case as attempt  # noqa: F401

    set_arithmetic()

    def say(**message: object) -> None:
        # On a line of its own, also after half an answer of a process that was ended meanwhile.
        answers.write(f"\n{json.dumps(message, allow_nan=False)}\n")
        answers.flush()

    this = os.getpid()
    for line in sys.stdin:
        job = json.loads(line)
        if forks and (child := os.fork()):
            _, status = os.waitpid(child, 0)
            say(code=os.waitstatus_to_exitcode(status))
            continue
        if forks:
            end_with_parent(this)
        say(pid=os.getpid())
        faulthandler.dump_traceback_later(job["limit_s"], exit=True)
        say(answer={"examine": _examine, "measure": _measure}[job["task"]](job))
        # Without the end of the interpreter: drivers and thread pools may crash there, and nothing is left to be done.
        os._exit(0)


def _examine(job: dict[str, Any]) -> dict[str, Any]:
    from temporal_zoo.errors import UserError

    from .case import Case
    from .machine import examine

    try:
        found = examine([Case.from_dict(values) for values in job["cases"]], job["expected"])
    except UserError as error:
        return {"refused": str(error)}
    return {"environment": found.environment, "place": found.place}


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    from temporal_zoo._support.environment import code

    from .case import Case
    from .run_case import run

    if job["sources"] not in (None, code()["sources"]):
        return {"refused": "the code has changed since the sweep began; the same command goes on with the new one"}
    trace = Path(job["trace"]) if job["trace"] else None
    case = Case.from_dict(job["case"])
    outcome = run(
        case, budget_s=job["budget_s"], clock_only=job["clock_only"], most_bytes=job["most_bytes"], trace=trace
    )
    return outcome.to_dict()
