"""The child process: reads jobs from standard input, one line of JSON each, and answers in lines of JSON.

    {"kind": "greeting", "device": "cuda"}               -> {"answer": {"outcome": "ok", "environment": ..., ...}}
    {"kind": "agreement", "what": {...}, "limit_s": 30}  -> {"during": "rows 3, frames 1"}, ..., {"answer": {...}}

`during` names the part that runs, so that the parent knows what ended the process.  The process ends after an error
that makes the CUDA context unusable.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

Note = Callable[[str], object]


def main() -> None:
    """Answers jobs until standard input ends."""
    # Packages may print; their output goes to standard error, so that it does not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()

    def say(**message: object) -> None:
        answers.write(f"\n{json.dumps(message, allow_nan=False)}\n")
        answers.flush()

    # Imported before the first job, while another process measures, so that imports take no time of a case.
    from . import compare, kernels, steps  # noqa: F401

    device = "cpu"
    for line in sys.stdin:
        job = json.loads(line)
        faulthandler.dump_traceback_later(job["limit_s"], exit=True)
        if job["kind"] == "greeting":
            device = job["device"]
            say(answer=_greeting(device))
        else:
            answer = _measured(job, device, lambda what: say(during=what))
            say(answer=answer)
            if answer["outcome"] == "crashed":
                os._exit(1)
        faulthandler.cancel_dump_traceback_later()
    # Skips the shutdown of the interpreter, in which drivers and thread pools may crash.
    os._exit(0)


def _greeting(device: str) -> dict[str, Any]:
    import torch

    from temporal_zoo._support.arithmetic import set_arithmetic
    from temporal_zoo._support.environment import environment
    from temporal_zoo.ops import ops

    set_arithmetic()
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            return {"outcome": "failed", "reason": f"torch {torch.__version__} finds no CUDA device"}
        torch.cuda.set_device(torch.device(device).index or 0)
        torch.zeros(1, device=device)
    # Excludes imported objects, so that the collection after every case is fast.
    gc.freeze()
    return {
        "outcome": "ok",
        "environment": environment(),
        "backends": {name: list(op.backends) for name, op in sorted(ops().items())},
    }


def _measured(job: dict[str, Any], device: str, note: Note) -> dict[str, Any]:
    during: list[str] = []

    def noted(what: str) -> None:
        during.append(what)
        note(what)

    outcome = _attempt(job, device, noted)
    gc.collect()
    from .exceptions import context_error

    if (broken := context_error(device)) is not None:
        outcome = {"outcome": "crashed", "reason": outcome.get("reason") or broken}
    if outcome["outcome"] in ("crashed", "failed"):
        outcome["during"] = during[-1] if during else None
    return outcome


def _attempt(job: dict[str, Any], device: str, note: Note) -> dict[str, Any]:
    import torch

    from bench.sweep.outcome import first_line
    from temporal_zoo.ops import BackendError

    from . import compare, kernels, steps

    tasks: dict[str, Callable[..., dict[str, Any]]] = {
        "agreement": compare.agreement,
        "kernels": kernels.kernels,
        "training_step": steps.training_step,
        "sampling_step": steps.sampling_step,
    }
    try:
        return tasks[job["kind"]](job["what"], device, note, job["without"])
    except BackendError as error:
        return {"outcome": "unsupported", "reason": str(error)}
    except torch.OutOfMemoryError as error:
        return {"outcome": "out_of_memory", "reason": first_line(error)}
    except Exception as error:
        return {"outcome": "failed", "reason": first_line(error), "traceback": traceback.format_exc()[-3000:]}
