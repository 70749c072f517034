"""Runs the trials of a probe and records them; results of the same environment are reused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffusion.probes import ProbeError
from diffusion.probes.trial import ProbeTrial, TrialProgress, run
from temporal_zoo._support.arithmetic import set_arithmetic
from temporal_zoo._support.environment import environment
from temporal_zoo._support.record import Session, read
from temporal_zoo.spec import MixerSpec


class Experiment:
    """Trials in order, with the results that the record in `folder` already holds.

    A result is reused only if the same code computed it in the same environment, because the mixer may have changed
    since then.

    Raises:
        ProbeError: there are no trials.
        OSError, RecordError: the record cannot be written or read.
    """

    def __init__(self, trials: Sequence[ProbeTrial], folder: Path) -> None:
        if not trials:
            raise ProbeError("--mixers names no mixer; name at least one")
        set_arithmetic()
        here = environment()
        record = folder / "record.jsonl"
        self.trials = trials
        self._known = recorded(record, here["id"]) if record.exists() else {}
        self._session = Session(record, here)

    @property
    def pending(self) -> list[ProbeTrial]:
        """The trials without a result."""
        return [trial for trial in self.trials if trial not in self._known]

    def steps(self) -> Iterator[tuple[ProbeTrial, TrialProgress]]:
        """Runs the pending trials; yields after every step, and records each trial at its end."""
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

    def results(self) -> list[tuple[ProbeTrial, dict[str, Any]]]:
        """The finished trials with their results, in order."""
        return [(trial, self._known[trial]) for trial in self.trials if trial in self._known]


def recorded(record: Path, environment_id: str) -> dict[ProbeTrial, dict[str, Any]]:
    """The results in a record that belong to one environment."""
    entries = [entry for entry in read(record).of("trial") if entry["environment"] == environment_id]
    return {ProbeTrial(**entry["trial"]): entry["result"] for entry in entries}
