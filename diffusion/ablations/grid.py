"""The grid of an ablation in a folder: its trials within the budget, what is done, and what is still to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusion.ablations.ablation import Ablation, Recipe
from diffusion.ablations.budget import Solved, solve
from diffusion.ablations.counting import counted
from diffusion.ablations.job import Job, Trial
from diffusion.ablations.result import REMEDY, Result
from diffusion.ablations.trial import FAILURE
from temporal_zoo._support.files import read_json


@dataclass(frozen=True)
class Grid:
    """All trials of an ablation, seed after seed, so that whoever stops early has whole seeds.

    base: what all cells begin from.  weights, device: as in `Job`.
    """

    ablation: Ablation
    base: Recipe
    folder: Path
    trials: tuple[Trial, ...]
    weights: str | None
    device: str

    def results(self) -> list[Result]:
        """Of the trials that are done, in order."""
        return [Result.load(self.folder / trial.file) for trial in self.trials if self.is_done(trial)]

    def is_done(self, trial: Trial) -> bool:
        """Whether its result is there."""
        return (self.folder / trial.file).exists()

    def failures(self) -> dict[str, str]:
        """Name of a trial that has no result -> why it failed when it was last tried."""
        notes = {trial.name: self.folder / trial.run / FAILURE for trial in self.trials if not self.is_done(trial)}
        return {name: read_json(path, REMEDY)["reason"] for name, path in notes.items() if path.exists()}

    def settings(self) -> dict[str, Any]:
        """What all cells begin from, and what they are made equal in."""
        return {"base": self.base.to_dict(), "budget": asdict(self.ablation.scale.budget)}

    def jobs(self) -> list[Job]:
        """What is still to do, a training run each."""
        found: dict[str, list[Trial]] = {}
        for trial in self.trials:
            if not self.is_done(trial):
                found.setdefault(trial.run, []).append(trial)
        return [Job(str(self.folder), tuple(trials), self.weights, self.device) for trials in found.values()]


def laid_out(
    ablation: Ablation, folder: Path, *, seeds: int, changes: tuple[str, ...], weights: str | None, device: str
) -> Grid:
    """The grid of an ablation.

    Args:
        seeds: how many; a cell at seed i has the data order and the noise of all others at seed i.
        changes: of the base recipe, made before those of the cells.
    Raises:
        ConfigError, UnknownMixer: a cell that cannot be built.
    """
    scale = ablation.scale
    base = scale.base.override(changes)
    # The data know their size best, but a plan is made without them: clips are cut to the configured one.
    model = base.train.model.replace(size=base.train.data.size)
    base = base.replace(train=base.train.replace(model=model))
    recipes = [base.override(cell.changes) for cell in scale.cells]
    solved = solve(recipes, scale.budget, device=device, folder=folder)
    costs = [_costs(found, scale.budget.kind, device) for found in solved]
    trials = [
        Trial(dict(cell.values), seed, cell.reference, _seeded(found, seed), scale.held_out, price, found.matched)
        for seed in range(seeds)
        for cell, found, price in zip(scale.cells, solved, costs, strict=True)
    ]
    return Grid(ablation, base, folder, tuple(trials), weights, device)


def _seeded(solved: Solved, seed: int) -> Recipe:
    return solved.recipe.replace(train=solved.recipe.train.replace(seed=seed))


def _costs(solved: Solved, kind: str, device: str) -> dict[str, float]:
    train = solved.recipe.train
    found = counted(train, device)
    costs: dict[str, float] = {"parameters": found.parameters, "stored_bytes": found.stored_bytes}
    if kind in ("parameters", "stored_bytes"):
        costs |= {"width": train.model.width, "off_budget": solved.off}
    if kind == "seconds":
        costs |= {"steps": train.steps, "off_budget": solved.off}
    return costs
