"""The process of one case: reads a job from standard input, and writes one line of JSON to standard output.

    {"task": "examine", "cases": [...], "expected": null}      -> {"environment": ..., "place": ...} or {"refused": ...}
    {"task": "measure", "case": {...}, "budget_s": 1.5, ...}   -> an outcome or {"refused": ...}

It ends itself at its limit, which begins when torch has been imported; also where no Python can run any more, and tells
on standard error where it was.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Does one job and ends the process."""
    # What packages print must not mix with the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    faulthandler.enable()
    # Nobody may be left to end it from outside.
    faulthandler.dump_traceback_later(job["limit_s"] + job["grace_s"], exit=True)
    answer = {"examine": _examine, "measure": _measure}[job["task"]](job)
    answers.write(json.dumps(answer, allow_nan=False) + "\n")
    answers.flush()
    # Without the end of the interpreter: drivers and thread pools may crash there, and nothing is left to be done.
    os._exit(0)


def _examine(job: dict[str, Any]) -> dict[str, Any]:
    from temporal_zoo.ops import BackendError

    from .case import Case
    from .site import SiteError, examine

    try:
        found = examine([Case.from_dict(values) for values in job["cases"]], job["expected"])
    except (SiteError, BackendError, ValueError) as error:
        return {"refused": str(error)}
    return {"environment": found.environment, "place": found.place}


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    from temporal_zoo.environment import code

    from .attempt import run
    from .case import Case

    if job["sources"] not in (None, code()["sources"]):
        return {"refused": "the code has changed since the sweep began; the same command goes on with the new one"}
    faulthandler.dump_traceback_later(job["limit_s"], exit=True)
    trace = Path(job["trace"]) if job["trace"] else None
    case = Case.from_dict(job["case"])
    return run(case, budget_s=job["budget_s"], most_bytes=job["most_bytes"], trace=trace).to_dict()
