"""Makes cells equal within a budget: solves for the width of the network, or for the number of training steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusion.ablations.budget import Budget
from diffusion.ablations.cache_key import train_key
from diffusion.ablations.network_cost import network_cost
from diffusion.ablations.recipe import Recipe
from diffusion.config import TrainConfig
from temporal_zoo._support.environment import digest
from temporal_zoo._support.files import read_json, write_json

MAX_WIDENING = 8  # largest width, as a multiple of the width in the base recipe
TIMED_STEPS = 5
_REMEDY = "delete it, and the speed is measured again"


@dataclass(frozen=True)
class FittedRecipe:
    """A recipe within a budget.

    off: relative deviation from the target.  matched: whether the deviation is within the tolerance.
    """

    recipe: Recipe
    off: float
    matched: bool


def fit(recipes: list[Recipe], budget: Budget, *, device: str, folder: Path) -> list[FittedRecipe]:
    """The recipes made equal, in order.

    Args:
        device: the device whose backends are counted, or whose speed is measured.
        folder: keeps the measured speeds, so that a resumed command finds the same number of steps.
    """
    if budget.kind == "steps":
        return [FittedRecipe(recipe, 0.0, True) for recipe in recipes]
    if budget.kind == "seconds":
        assert budget.target is not None
        return [_fit_steps(recipe, budget.target, device, folder) for recipe in recipes]
    target = budget.target or _cost(recipes[0], recipes[0].train.model.width, budget.kind, device)
    return [_fit_width(recipe, target, budget, device) for recipe in recipes]


def _fit_width(recipe: Recipe, target: float, budget: Budget, device: str) -> FittedRecipe:
    model = recipe.train.model
    unit = math.lcm(model.groups, 2)
    largest = max(1, MAX_WIDENING * model.width // unit)
    off = lambda count: _cost(recipe, count * unit, budget.kind, device) / target - 1
    best = min(_bracket(off, 1 if unit >= 8 else math.ceil(8 / unit), largest), key=lambda count: abs(off(count)))
    return FittedRecipe(_with_width(recipe, best * unit), off(best), abs(off(best)) <= budget.tolerance)


def _bracket(off: Callable[[int], float], low: int, high: int) -> tuple[int, int]:
    """The two neighbouring counts between which a rising function reaches zero."""
    if off(low) >= 0:
        return low, low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if off(middle) < 0 else (low, middle)
    return low, high


def _cost(recipe: Recipe, width: int, kind: str, device: str) -> float:
    return float(getattr(network_cost(_with_width(recipe, width).train, device), kind))


def _with_width(recipe: Recipe, width: int) -> Recipe:
    return recipe.replace(train=recipe.train.replace(model=recipe.train.model.replace(width=width)))


def _fit_steps(recipe: Recipe, seconds: float, device: str, folder: Path) -> FittedRecipe:
    path = folder / "speeds.json"
    known = read_json(path, _REMEDY) if path.exists() else {}
    key = digest({"train": train_key(recipe.train), "device": device})
    if key not in known:
        write_json(path, known | {key: _step_seconds(recipe.train, device)})
        known = read_json(path, _REMEDY)
    steps = max(1, round(seconds / known[key]))
    return FittedRecipe(recipe.replace(train=recipe.train.replace(steps=steps)), steps * known[key] / seconds - 1, True)


def _step_seconds(train: TrainConfig, device: str) -> float:
    """Seconds of a training step on one thread: the median of a few, without the first."""
    from diffusion.training.trainer import Trainer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = Trainer(train, torch.device(device))
        return statistics.median([trainer.advance().seconds for _ in range(TIMED_STEPS + 1)][1:])
    finally:
        torch.set_num_threads(threads)
