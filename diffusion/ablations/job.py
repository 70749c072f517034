"""A job: one training run and the cells that are judged by it, as a value that travels to other processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusion.ablations.ablation import Recipe
from diffusion.ablations.keys import plain, train_key
from diffusion.ablations.result import cell_name
from temporal_zoo._support.environment import digest


@dataclass(frozen=True)
class Trial:
    """One cell at one seed.

    cell, seed, reference: as its `Result` has them.  held_out: the unit of that loss (`Scale.held_out`).  costs: what
    is known before it is run, counted or solved for.  matched: whether it is within the budget.
    """

    cell: dict[str, str]
    seed: int
    reference: bool
    recipe: Recipe
    held_out: str
    costs: dict[str, float]
    matched: bool = True

    @property
    def name(self) -> str:
        """As `Result.name`."""
        return f"{cell_name(self.cell)}, seed {self.seed}"

    @property
    def run(self) -> str:
        """Its training run's folder: cells that differ in the drawing of clips alone share it."""
        return digest(train_key(self.recipe.train))

    @property
    def file(self) -> str:
        """Where its result is written, in the folder of the ablation."""
        judged = {"drawing": plain(self.recipe.drawing), "held_out": self.held_out}
        return f"{self.run}/result-{digest(judged)}.json"


@dataclass(frozen=True)
class Job:
    """Trials that share a training run, to be done in `folder`, that of the ablation.

    weights: of the extractor, when it takes any.  device: where to train and draw.
    """

    folder: str
    trials: tuple[Trial, ...]
    weights: str | None
    device: str

    @property
    def name(self) -> str:
        """What it trains, in words."""
        return self.trials[0].name

    @property
    def run(self) -> Path:
        """The folder of the training run."""
        return Path(self.folder) / self.trials[0].run

    @property
    def steps(self) -> int:
        """Of the training run."""
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
