"""The records of a quarter: what is done, what failed, and what is known of the backends.  Torch-free.

Every line has `case` (what was measured), `outcome`, `reason`, `during` (what ran when the process ended), `seconds`,
`estimate_s`, `device`, and what its kind adds.  Lines of kind "agreement" have `op`, `backend`, `dtype`, `error`,
`tolerance` and `agrees`, which is None unless the comparison ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from temporal_zoo._support.record import Session, read

from .cases import Case, key

RECORD, PAGE = "gpu.jsonl", "gpu.md"
KINDS = ("agreement", "kernels", "training_step", "sampling_step")
# Outcomes that are an answer; others are faults, which are tried once more, or were cut off by the end of the minutes.
ANSWERS = ("ok", "unsupported", "out_of_memory", "too_large")
FAULTS = ("failed", "crashed", "timed_out")
CUT_OFF = "cut_off"

Identity = tuple[str | None, ...]
Line = Mapping[str, Any]


def identity(environment: Mapping[str, Any], device: str) -> Identity:
    """What two records must share to count as one: the sources, the device, torch and Triton."""
    software = environment["software"]
    return (environment["code"]["sources"], name_of(environment, device), software["torch"], software["triton"])


def name_of(environment: Mapping[str, Any], device: str) -> str | None:
    """The name of a GPU, or "cpu"; None where the environment has no such GPU."""
    kind, _, index = device.partition(":")
    names = [each["name"] for each in environment["devices"]]
    return next(iter(names[int(index or 0) :]), None) if kind == "cuda" else kind


class Book:
    """The file of records, and what it holds of this code on this device.

    Args:
        environment: where the processes measure (`temporal_zoo._support.environment`).
        device: as torch names it.
    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, environment: Mapping[str, Any], device: str) -> None:
        self.device = name_of(environment, device)
        self._session = Session(path, environment)
        self._lines: dict[str, list[Line]] = {}
        reading, mine = read(path), identity(environment, device)
        same = {name for name, each in reading.environments.items() if identity(each, device) == mine}
        for line in reading.records:
            if line["kind"] in KINDS and line["environment"] in same and line["device"] == self.device:
                self._add(line)

    def write(self, case: Case, answer: Mapping[str, Any], seconds: float, estimate_s: float) -> None:
        """Appends how a case ended."""
        head = {"case": case.what, "device": self.device, "reason": "", "during": None}
        if case.kind == "agreement":
            head |= {name: case.what[name] for name in ("op", "backend", "dtype")} | {"error": None, "agrees": None}
        line = head | dict(answer) | {"seconds": round(seconds, 2), "estimate_s": round(estimate_s, 2)}
        self._session.write(case.kind, line)
        self._add(line | {"kind": case.kind})

    def finished(self, case: Case, *, again: bool) -> bool:
        """Whether nothing is left to do: the case has an answer, or it failed.

        Args:
            again: a case that failed once is not finished.
        """
        outcomes = [line["outcome"] for line in self.attempts(case)]
        faults = sum(outcome in FAULTS for outcome in outcomes)
        return any(outcome in ANSWERS for outcome in outcomes) or faults >= (2 if again else 1)

    def attempts(self, case: Case) -> Sequence[Line]:
        """The lines of a case, in their order."""
        return self._lines.get(case.key, ())

    def agreed(self) -> set[tuple[str, str, str]]:
        """(op, backend, dtype) of what agrees with the reference in all shapes, and refuses none of them."""
        lines = [line for lines in self._lines.values() for line in lines]
        good = [line for line in lines if line.get("agrees") and not line.get("refused")]
        return {(line["op"], line["backend"], line["dtype"]) for line in good}

    def _add(self, line: Line) -> None:
        self._lines.setdefault(key(line["kind"], line["case"]), []).append(line)
