"""An ablation: a question, the contrasts that it claims, and for each scale a base recipe with its cells.  No torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from diffusion.ablations.budget import Budget
from diffusion.ablations.recipe import Recipe

_NO_BUDGET = Budget()


@dataclass(frozen=True)
class Contrast:
    """A claim that an ablation makes before it runs: along an axis, one value has lower measures than another."""

    axis: str
    better: str
    other: str

    @property
    def names(self) -> tuple[str, str]:
        """Both values with their axis, such as "directions both"."""
        return f"{self.axis} {self.better}", f"{self.axis} {self.other}"


@dataclass(frozen=True)
class Cell:
    """One combination of values of the axes.

    values: axis -> value, as tables show it.  changes: assignments to fields of the base recipe, such as
    "train.model.mixer=s4d".  reference: True for a baseline outside the crossed axes; every cell is compared with it.
    """

    values: Mapping[str, str]
    changes: tuple[str, ...]
    reference: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An ablation at one size.

    base: the recipe that cells change.  held_out: "loss" compares the loss of training; "v" compares the error of v
    after clamping, which exists for networks with different prediction targets.
    """

    base: Recipe
    cells: tuple[Cell, ...]
    budget: Budget = _NO_BUDGET
    held_out: Literal["loss", "v"] = "loss"


@dataclass(frozen=True)
class Ablation:
    """One ablation at one scale; `catalogue.get` builds it.

    contrasts: claims that are declared before the ablation runs.  apart: axes that change the task itself, such as
    frames; measures are not compared across them.
    """

    name: str
    question: str
    contrasts: tuple[Contrast, ...]
    apart: tuple[str, ...]
    scale_name: str
    scale: Scale


def crossed(axes: Mapping[str, Mapping[str, str]], *, reference: bool = False) -> tuple[Cell, ...]:
    """A cell for every combination of values.

    Args:
        axes: axis -> value -> its assignments, separated by blanks.
    """
    combinations = itertools.product(*(changes.items() for changes in axes.values()))
    return tuple(
        Cell(
            dict(zip(axes, (value for value, _ in combination), strict=True)),
            tuple(change for _, changes in combination for change in changes.split()),
            reference,
        )
        for combination in combinations
    )
