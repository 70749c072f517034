"""The grid of an ablation in a folder: its trials within the budget, finished ones, and pending ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusion.ablations.ablation import Ablation
from diffusion.ablations.fit_budget import FittedRecipe, fit
from diffusion.ablations.job import FAILURE, Job
from diffusion.ablations.network_cost import network_cost
from diffusion.ablations.recipe import Recipe
from diffusion.ablations.result import REMEDY, Result
from diffusion.ablations.trial import Trial
from temporal_zoo._support.files import read_json


@dataclass(frozen=True)
class Grid:
    """All trials of an ablation, seed after seed, so that an interrupted ablation has complete seeds.

    base: the recipe that cells change.  weights, device: as in `Job`.
    """

    ablation: Ablation
    base: Recipe
    folder: Path
    trials: tuple[Trial, ...]
    weights: str | None
    device: str

    def results(self) -> list[Result]:
        """The results of finished trials, in order."""
        return [Result.load(self.folder / trial.file) for trial in self.trials if self.is_done(trial)]

    def is_done(self, trial: Trial) -> bool:
        """Whether the result of a trial exists."""
        return (self.folder / trial.file).exists()

    def failures(self) -> dict[str, str]:
        """Name of a trial without a result -> the reason of its last failure."""
        paths = {trial.name: self.folder / trial.run / FAILURE for trial in self.trials if not self.is_done(trial)}
        return {name: read_json(path, REMEDY)["reason"] for name, path in paths.items() if path.exists()}

    def settings(self) -> dict[str, Any]:
        """The base recipe and the budget, as plain values."""
        return {"base": self.base.to_dict(), "budget": asdict(self.ablation.scale.budget)}

    def jobs(self) -> list[Job]:
        """The pending trials, grouped by training run."""
        pending: dict[str, list[Trial]] = {}
        for trial in self.trials:
            if not self.is_done(trial):
                pending.setdefault(trial.run, []).append(trial)
        return [Job(str(self.folder), tuple(trials), self.weights, self.device) for trials in pending.values()]


def build_grid(
    ablation: Ablation, folder: Path, *, seeds: int, changes: tuple[str, ...], weights: str | None, device: str
) -> Grid:
    """The grid of an ablation.

    Args:
        seeds: the number of seeds; all cells at seed i have the same order of data and the same noise.
        changes: assignments to the base recipe, applied before those of the cells.
    Raises:
        ConfigError, UnknownMixer: a cell that cannot be built.
    """
    scale = ablation.scale
    base = scale.base.override(changes)
    # A plan does not open the data, so the model takes its size from the configuration: clips are cropped to it.
    model = base.train.model.replace(size=base.train.data.size)
    base = base.replace(train=base.train.replace(model=model))
    recipes = [base.override(cell.changes) for cell in scale.cells]
    fitted = fit(recipes, scale.budget, device=device, folder=folder)
    costs = [_costs(entry, scale.budget.kind, device) for entry in fitted]
    trials = [
        Trial(dict(cell.values), seed, cell.reference, _with_seed(entry, seed), scale.held_out, cost, entry.matched)
        for seed in range(seeds)
        for cell, entry, cost in zip(scale.cells, fitted, costs, strict=True)
    ]
    return Grid(ablation, base, folder, tuple(trials), weights, device)


def _with_seed(fitted: FittedRecipe, seed: int) -> Recipe:
    return fitted.recipe.replace(train=fitted.recipe.train.replace(seed=seed))


def _costs(fitted: FittedRecipe, kind: str, device: str) -> dict[str, float]:
    train = fitted.recipe.train
    cost = network_cost(train, device)
    costs: dict[str, float] = {"parameters": cost.parameters, "stored_bytes": cost.stored_bytes}
    if kind in ("parameters", "stored_bytes"):
        costs |= {"width": train.model.width, "off_budget": fitted.off}
    if kind == "seconds":
        costs |= {"steps": train.steps, "off_budget": fitted.off}
    return costs
