"""A trial: one cell at one seed, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.ablations.cache_key import config_key, train_key
from diffusion.ablations.recipe import Recipe
from diffusion.ablations.result import cell_name
from temporal_zoo._support.environment import digest


@dataclass(frozen=True)
class Trial:
    """One cell at one seed.

    cell, seed, reference: as in its `Result`.  held_out: the unit of that loss (`Scale.held_out`).  costs: what is
    known before training, counted or solved for.  matched: whether the cell is within the budget.
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
        """The folder of its training run; cells that differ only in sampling share it."""
        return digest(train_key(self.recipe.train))

    @property
    def file(self) -> str:
        """The path of its result in the folder of the ablation."""
        evaluated = {"drawing": config_key(self.recipe.drawing), "held_out": self.held_out}
        return f"{self.run}/result-{digest(evaluated)}.json"
