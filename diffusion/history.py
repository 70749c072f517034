"""What a run's log says of its steps."""

from __future__ import annotations

from pathlib import Path

from temporal_zoo.record import read


def history(folder: Path) -> list[dict]:
    """The logged steps of a run in order: what was trained after its last checkpoint and lost in a crash left out.

    Raises:
        RecordError: the log cannot be read.
        OSError: there is none.
    """
    steps: list[dict] = []
    for record in read(folder / "log.jsonl").of("step"):
        # A step that comes again was trained again, and with it all that had followed.
        while steps and steps[-1]["step"] >= record["step"]:
            steps.pop()
        steps.append(record)
    return steps
