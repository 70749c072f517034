"""The records of GPU runs: finished cases, failures, and backends that agree with the reference.  Torch-free.

Every record has `case` (what was measured), `outcome`, `reason`, `during` (the part that ran when the process ended),
`seconds`, `estimate_s`, `device`, and fields of its kind.  Records of kind "agreement" have `op`, `backend`, `dtype`,
`error`, `tolerance` and `agrees`, which is None if the comparison did not end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from temporal_zoo._support.record import Session, read

from .cases import GpuCase, key

RECORD, PAGE = "gpu.jsonl", "gpu.md"
KINDS = ("agreement", "kernels", "training_step", "sampling_step")
# Outcomes that are an answer.  The run repeats a case with another outcome: a fault once, a cut-off case always.
ANSWERS = ("ok", "unsupported", "out_of_memory", "too_large")
FAULTS = ("failed", "crashed", "timed_out")
CUT_OFF = "cut_off"

RunIdentity = tuple[str | None, ...]
GpuRecord = Mapping[str, Any]


def identity(environment: Mapping[str, Any], device: str) -> RunIdentity:
    """The sources, the device, torch and Triton: records that differ in these are not compared."""
    software = environment["software"]
    return (environment["code"]["sources"], name_of(environment, device), software["torch"], software["triton"])


def name_of(environment: Mapping[str, Any], device: str) -> str | None:
    """The name of a GPU, or "cpu"; None if the environment has no such GPU."""
    kind, _, index = device.partition(":")
    names = [each["name"] for each in environment["devices"]]
    return next(iter(names[int(index or 0) :]), None) if kind == "cuda" else kind


class GpuResults:
    """A file of records; reads the records of this code on this device, and appends new records.

    Args:
        environment: environment of the child processes (`temporal_zoo._support.environment`).
        device: a device of torch.
    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, environment: Mapping[str, Any], device: str) -> None:
        self.device = name_of(environment, device)
        self._session = Session(path, environment)
        self._records: dict[str, list[GpuRecord]] = {}
        reading, mine = read(path), identity(environment, device)
        same = {name for name, each in reading.environments.items() if identity(each, device) == mine}
        for record in reading.records:
            if record["kind"] in KINDS and record["environment"] in same and record["device"] == self.device:
                self._add(record)

    def write(self, case: GpuCase, answer: Mapping[str, Any], seconds: float, estimate_s: float) -> None:
        """Appends the record of a case."""
        head = {"case": case.what, "device": self.device, "reason": "", "during": None}
        if case.kind == "agreement":
            head |= {name: case.what[name] for name in ("op", "backend", "dtype")} | {"error": None, "agrees": None}
        record = head | dict(answer) | {"seconds": round(seconds, 2), "estimate_s": round(estimate_s, 2)}
        self._session.write(case.kind, record)
        self._add(record | {"kind": case.kind})

    def finished(self, case: GpuCase, *, again: bool) -> bool:
        """Whether the case has an answer, or has failed.

        Args:
            again: whether a case that failed once is repeated, so that it is not finished.
        """
        outcomes = [record["outcome"] for record in self.attempts(case)]
        faults = sum(outcome in FAULTS for outcome in outcomes)
        return any(outcome in ANSWERS for outcome in outcomes) or faults >= (2 if again else 1)

    def attempts(self, case: GpuCase) -> Sequence[GpuRecord]:
        """The records of a case, in their order."""
        return self._records.get(case.key, ())

    def agreed(self) -> set[tuple[str, str, str]]:
        """(op, backend, dtype) of each backend that agrees with the reference in all shapes and refuses no shape."""
        records = [record for attempts in self._records.values() for record in attempts]
        good = [record for record in records if record.get("agrees") and not record.get("refused")]
        return {(record["op"], record["backend"], record["dtype"]) for record in good}

    def _add(self, record: GpuRecord) -> None:
        self._records.setdefault(key(record["kind"], record["case"]), []).append(record)
