"""Making cells equal: width is solved for so that parameters or stored bytes agree, or steps so that seconds do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusion.ablations.ablation import Budget, Recipe
from diffusion.ablations.counting import counted
from diffusion.ablations.keys import train_key
from diffusion.config import TrainConfig
from temporal_zoo._support.environment import digest
from temporal_zoo._support.files import read_json, write_json

MOST_WIDENED = 8  # times the width of the base; where even this is too little, there is no match
TIMED_STEPS = 5


@dataclass(frozen=True)
class Solved:
    """A recipe within a budget.  off: the share by which it misses the target; matched: whether that is tolerated."""

    recipe: Recipe
    off: float
    matched: bool


def solve(recipes: list[Recipe], budget: Budget, *, device: str, folder: Path) -> list[Solved]:
    """The recipes made equal, in order.

    Args:
        device: whose backends are counted, or which is timed.
        folder: keeps the measured speeds, so that a command that is typed again solves for the same steps.
    """
    if budget.kind == "steps":
        return [Solved(recipe, 0.0, True) for recipe in recipes]
    if budget.kind == "seconds":
        assert budget.target is not None
        return [_in_seconds(recipe, budget.target, device, folder) for recipe in recipes]
    target = budget.target or _number(recipes[0], recipes[0].train.model.width, budget.kind, device)
    return [_widened(recipe, target, budget, device) for recipe in recipes]


def _widened(recipe: Recipe, target: float, budget: Budget, device: str) -> Solved:
    model = recipe.train.model
    unit = math.lcm(model.groups, 2)
    most = max(1, MOST_WIDENED * model.width // unit)
    off = lambda count: _number(recipe, count * unit, budget.kind, device) / target - 1
    best = min(_around(off, 1 if unit >= 8 else math.ceil(8 / unit), most), key=lambda count: abs(off(count)))
    return Solved(_of_width(recipe, best * unit), off(best), abs(off(best)) <= budget.tolerance)


def _around(off: Callable[[int], float], low: int, high: int) -> tuple[int, int]:
    """The largest count that stays below the target and the smallest that does not, of a rising function."""
    if off(low) >= 0:
        return low, low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if off(middle) < 0 else (low, middle)
    return low, high


def _number(recipe: Recipe, width: int, kind: str, device: str) -> float:
    return float(getattr(counted(_of_width(recipe, width).train, device), kind))


def _of_width(recipe: Recipe, width: int) -> Recipe:
    return recipe.replace(train=recipe.train.replace(model=recipe.train.model.replace(width=width)))


_REMEDY = "delete it, and the speed is measured again"


def _in_seconds(recipe: Recipe, seconds: float, device: str, folder: Path) -> Solved:
    path = folder / "speeds.json"
    known = read_json(path, _REMEDY) if path.exists() else {}
    key = digest({"train": train_key(recipe.train), "device": device})
    if key not in known:
        write_json(path, known | {key: _step_seconds(recipe.train, device)})
        known = read_json(path, _REMEDY)
    steps = max(1, round(seconds / known[key]))
    return Solved(recipe.replace(train=recipe.train.replace(steps=steps)), steps * known[key] / seconds - 1, True)


def _step_seconds(train: TrainConfig, device: str) -> float:
    """Seconds of a training step on one thread: the median of a few, the first left out."""
    from diffusion.training.trainer import Trainer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = Trainer(train, torch.device(device))
        return statistics.median([trainer.advance().seconds for _ in range(TIMED_STEPS + 1)][1:])
    finally:
        torch.set_num_threads(threads)
