"""A job: one training run and the trials that are evaluated on it, as a value that other processes receive."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from diffusion.ablations.trial import Trial
from temporal_zoo._support.files import write_json

FAILURE = "failure.json"  # in a run's folder: the reason why its trials have no result
STDERR = "stderr.txt"  # in a run's folder: warnings, and the traceback of a failure


@dataclass(frozen=True)
class Job:
    """Trials that share a training run.

    folder: of the ablation.  weights: file with the weights of the extractor, where it needs any.  device: trains and
    samples.
    """

    folder: str
    trials: tuple[Trial, ...]
    weights: str | None
    device: str

    @property
    def name(self) -> str:
        """The name of its first trial."""
        return self.trials[0].name

    @property
    def run(self) -> Path:
        """The folder of the training run."""
        return Path(self.folder) / self.trials[0].run

    @property
    def steps(self) -> int:
        """The number of training steps."""
        return self.trials[0].recipe.train.steps

    def record_failure(self, reason: str | None) -> None:
        """Writes the reason of a failure into the run's folder; None removes an earlier one."""
        with suppress(FileNotFoundError):
            (self.run / FAILURE).unlink()
        if reason is not None:
            write_json(self.run / FAILURE, {"reason": reason})
