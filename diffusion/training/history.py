"""What a run's log says of its steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from temporal_zoo._support.record import read

log = logging.getLogger("temporal_zoo.history")


def history(folder: Path) -> list[dict]:
    """The logged steps of a run in order: what was trained after its last checkpoint and lost in a crash left out.

    Raises:
        RecordError: the log cannot be read.
        OSError: there is none.
    """
    steps: list[dict] = []
    for record in read(folder / "log.jsonl").of("step"):
        if not _is_step(record):
            log.warning("a line of %s is no step and was left out", folder / "log.jsonl")
            continue
        # A step that comes again was trained again, and with it all that had followed.
        while steps and steps[-1]["step"] >= record["step"]:
            steps.pop()
        steps.append(record)
    return steps


def _is_step(record: dict[str, Any]) -> bool:
    """Whether the numbers of a line are numbers; only held-out losses may be missing."""
    held_out = record.get("test_loss")
    values = [record.get("step"), *(record.get(name, 0) for name in ("clips_seen", "loss", "seconds"))]
    return all(isinstance(value, (int, float)) for value in (*values, 0 if held_out is None else held_out))
