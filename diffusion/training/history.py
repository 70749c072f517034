"""The steps in a run's log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from temporal_zoo._support.record import read

log = logging.getLogger("temporal_zoo.history")


def history(folder: Path) -> list[dict]:
    """The logged steps of a run in order, without those that a crash lost because no checkpoint followed them.

    Raises:
        RecordError: the log cannot be read.
        OSError: there is no log.
    """
    steps: list[dict] = []
    for record in read(folder / "log.jsonl").of("step"):
        if not _is_step(record):
            log.warning("a line of %s is not a step; it is left out", folder / "log.jsonl")
            continue
        # A resumed run repeats the steps after its checkpoint; the later records count.
        while steps and steps[-1]["step"] >= record["step"]:
            steps.pop()
        steps.append(record)
    return steps


def _is_step(record: dict[str, Any]) -> bool:
    """Whether the record has the numbers of a step; only the held-out loss may be missing."""
    held_out = record.get("test_loss")
    values = [record.get("step"), *(record.get(name, 0) for name in ("clips_seen", "loss", "seconds"))]
    return all(isinstance(value, (int, float)) for value in (*values, 0 if held_out is None else held_out))
