"""What an ablation is: a question, and for each scale a base configuration and the cells that change it.  No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, get_args

from diffusion.ablations import AblationError
from diffusion.config import TrainConfig
from temporal_zoo.config import Config, ConfigError, option

if TYPE_CHECKING:
    from diffusion.ablations.comparison import Contrast

Kind = Literal["steps", "parameters", "stored_bytes", "seconds"]


@dataclass(frozen=True, kw_only=True)
class Drawing(Config):
    """How clips are drawn from a trained cell, and compared with held-out ones."""

    count: int = option(32, "clips to draw; 0 for none, and the held-out loss alone", least=0)
    sampler: Literal["ancestral", "ddim"] = option("ddim", "how noise becomes a clip")
    steps: int = option(16, "noise levels that the sampler visits", least=1)
    extractor: str = option("plain", "network whose features are compared; only distances of i3d are called fvd")
    protocol: str = option("standard", "what the distance is computed with")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count == 1:
            raise ConfigError("Drawing.count is 1; a distance needs at least 2 clips, and 0 draws none")


@dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """All that the result of a cell at one seed depends on: its digest names the folder."""

    train: TrainConfig = option(TrainConfig(), "the training run")
    drawing: Drawing = option(Drawing(), "how it is judged")


@dataclass(frozen=True)
class Cell:
    """One place of the grid.

    values: axis -> value, as tables show it.  changes: of the base recipe, such as "train.model.mixer=s4d".
    reference: a line of reference, which belongs to no axis and is compared with all.
    """

    values: Mapping[str, str]
    changes: tuple[str, ...]
    reference: bool = False


@dataclass(frozen=True)
class Budget:
    """What cells are made equal in.

    kind: "steps" changes nothing.  "parameters" and "stored_bytes" (of one clip, in training) solve for the width of
    the network, "seconds" (of training, at the speed measured once on one thread) for the number of steps.
    target: what all cells should have; None is what the first cell has as it comes.
    tolerance: how far off a cell may be, as a share; one that is further off is kept, and said to have no match.
    """

    kind: Kind = "steps"
    target: float | None = None
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise AblationError(
                f"there is no budget {self.kind!r}; cells can be made equal in {', '.join(get_args(Kind))}"
            )
        if self.kind == "seconds" and self.target is None:
            raise AblationError("a budget of seconds needs a target, such as seconds=120 for each training")
        if self.kind == "steps" and self.target is not None:
            raise AblationError("a budget of steps leaves cells as they are; their number is --set train.steps=...")
        if self.target is not None and not 0 < self.target < math.inf:
            raise AblationError(f"a budget of {self.target:g} {self.kind} is none; its target must be above zero")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "parameters" or "seconds=120".  Raises: AblationError for what is neither."""
        kind, equals, target = text.partition("=")
        try:
            return cls(kind, float(target) if equals else None)  # type: ignore[arg-type]
        except AblationError:
            raise
        except ValueError:
            raise AblationError(f"{target!r} in {text!r} is not a number; write for example seconds=120") from None


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An ablation at one size.

    base: what cells change.  held_out: "loss" is that of training; "v" the error of v after clamping, in which networks
    that predict different things can be compared.
    """

    base: Recipe
    cells: tuple[Cell, ...]
    budget: Budget = Budget()
    held_out: Literal["loss", "v"] = "loss"


@dataclass(frozen=True)
class Ablation:
    """One ablation at one scale; made by `catalogue.get`.

    contrasts: what is claimed before it is run.  apart: axes, such as frames, that change the task itself, so that
    measures are not compared across them.
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
        axes: axis -> value -> the changes it stands for, separated by blanks.
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
