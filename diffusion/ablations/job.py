"""A job: one training run and the trials that are evaluated on it, as a value that other processes receive."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusion.ablations.recipe import Recipe
from diffusion.ablations.trial import Trial


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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a line of JSON."""
        trials = [vars(trial) | {"recipe": trial.recipe.to_dict()} for trial in self.trials]
        return asdict(self) | {"trials": trials}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Job:
        """The inverse of `to_dict`."""
        trials = (Trial(**trial | {"recipe": Recipe.from_dict(trial["recipe"])}) for trial in content["trials"])
        return cls(**content | {"trials": tuple(trials)})
