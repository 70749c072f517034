"""Many trials, and a record of them: what is recorded from the same environment is not tried again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffusion.probes import ProbeError
from diffusion.probes.trial import Progress, Trial, run
from temporal_zoo._support.arithmetic import set_arithmetic
from temporal_zoo._support.environment import environment
from temporal_zoo._support.record import Session, read
from temporal_zoo.spec import MixerSpec


class Sweep:
    """Trials in order, with the results that a record in `folder` already holds.

    A result counts only when the same code made it in the same environment: what a probe says of a mixer that was
    changed since would be worse than nothing.

    Raises:
        ProbeError: there are no trials.
        OSError, RecordError: the record cannot be written or read.
    """

    def __init__(self, trials: Sequence[Trial], folder: Path) -> None:
        if not trials:
            raise ProbeError("nothing to try: name at least one mixer")
        set_arithmetic()
        here = environment()
        record = folder / "record.jsonl"
        self.trials = trials
        self._known = recorded(record, here["id"]) if record.exists() else {}
        self._session = Session(record, here)

    @property
    def pending(self) -> list[Trial]:
        """The trials that have no result yet."""
        return [trial for trial in self.trials if trial not in self._known]

    def steps(self) -> Iterator[tuple[Trial, Progress]]:
        """Runs what is pending; yields after every step, and records each trial when it ends."""
        for trial in self.pending:
            for progress in run(trial):
                if progress.result is not None:
                    self._known[trial] = progress.result
                    self._session.write("trial", {
                        "trial": dataclasses.asdict(trial),
                        "options": MixerSpec.parse(trial.mixer).config().to_dict(),
                        "result": progress.result,
                    })  # fmt: skip
                yield trial, progress

    def results(self) -> list[tuple[Trial, dict[str, Any]]]:
        """All trials with their results, in order; those still pending are left out."""
        return [(trial, self._known[trial]) for trial in self.trials if trial in self._known]


def recorded(record: Path, environment_id: str) -> dict[Trial, dict[str, Any]]:
    """The results in a record that were made in one environment."""
    found = [entry for entry in read(record).of("trial") if entry["environment"] == environment_id]
    return {Trial(**entry["trial"]): entry["result"] for entry in found}
