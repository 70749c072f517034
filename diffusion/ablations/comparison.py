"""Compares the results of an ablation: means over seeds, differences that are paired by seed, effects of an axis.

The trials of one seed share data order and noise, so the random effect of the seed cancels in the difference of two
cells; it does not cancel between their means.  Differences are computed per seed and averaged over seeds, and the
spread over seeds gives the interval (Student's t).  Every measure is better when it is lower.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from diffusion.ablations import AblationError
from diffusion.ablations.ablation import Contrast
from diffusion.ablations.result import Result, cell_name, is_number
from diffusion.evaluation.uncertainty import Estimate, mean_over_seeds

CONTROL = "identity"  # the mixer that passes no information between frames


@dataclass(frozen=True)
class CellResults:
    """The results of one cell.  axes: axis -> value.  trials: seed -> result."""

    axes: dict[str, str]
    reference: bool
    trials: dict[int, Result]

    @property
    def name(self) -> str:
        """As `cell_name`."""
        return cell_name(self.axes)

    @property
    def is_control(self) -> bool:
        """Whether no information passes between the frames of this cell."""
        return CONTROL in self.axes.values()

    def measure(self, name: str) -> Estimate | None:
        """The mean over the seeds with this measure; None without any."""
        values = self.values(name)
        return mean_over_seeds(list(values.values())) if values else None

    def cost(self, name: str) -> float | None:
        """The median over seeds: parameters and stored bytes are equal for all, and seconds have outliers."""
        values = [trial.costs[name] for trial in self.trials.values() if name in trial.costs]
        return statistics.median(values) if values else None

    def values(self, measure: str) -> dict[int, float]:
        """Seed -> measure, for the seeds with this measure."""
        return {seed: trial.measures[measure] for seed, trial in self.trials.items() if measure in trial.measures}


@dataclass(frozen=True)
class Difference:
    """The first cell minus the second at the same seeds; negative where the first is better.

    relative: as a fraction of the second; None where the second is zero or below, which some distances may be.
    """

    first: str
    second: str
    absolute: Estimate
    relative: Estimate | None
    seeds: tuple[int, ...]

    @property
    def shown(self) -> Estimate:
        """The relative difference, else the absolute one; verdicts use this value."""
        return self.absolute if self.relative is None else self.relative

    @property
    def lower(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.shown.below_zero

    @property
    def higher(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.shown.above_zero


@dataclass(frozen=True)
class Effect:
    """The effect of a contrast on a measure: overall, and in each pair of cells that differ only in its axis.

    overall: None while no seed has all pairs.
    """

    contrast: Contrast
    measure: str
    overall: Difference | None
    parts: tuple[Difference, ...]


def cells(results: Iterable[Result]) -> list[CellResults]:
    """Groups results by cell, in the order of the results; references and controls come last.

    Raises: AblationError when a cell has two results for one seed.
    """
    by_cell: dict[tuple[tuple[str, str], ...], CellResults] = {}
    for result in results:
        cell = by_cell.setdefault(tuple(sorted(result.cell.items())), CellResults(result.cell, result.reference, {}))
        if result.seed in cell.trials:
            raise AblationError(f"{result.name} has two results; remove one of them")
        cell.trials[result.seed] = result
    return sorted(by_cell.values(), key=lambda cell: cell.reference + cell.is_control)


def measures(all_cells: Sequence[CellResults]) -> list[str]:
    """The names of all measures, in the order of the results."""
    return list(dict.fromkeys(name for cell in all_cells for trial in cell.trials.values() for name in trial.measures))


def costs(all_cells: Sequence[CellResults]) -> list[str]:
    """The names of all costs, in the order of the results."""
    return list(dict.fromkeys(name for cell in all_cells for trial in cell.trials.values() for name in trial.costs))


def ordered_axis(all_cells: Sequence[CellResults]) -> str | None:
    """The first axis with several values that are all numbers, such as frames; else None."""
    axes = dict.fromkeys(axis for cell in all_cells for axis in cell.axes)
    for axis in axes:
        values = {cell.axes[axis] for cell in all_cells if axis in cell.axes}
        if len(values) > 1 and all(map(is_number, values)):
            return axis
    return None


def difference(first: CellResults, second: CellResults, measure: str) -> Difference | None:
    """The difference of two cells at their common seeds; None without a common seed."""
    ours, theirs = first.values(measure), second.values(measure)
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    if not seeds:
        return None
    return _averaged(first.name, second.name, {seed: [(ours[seed], theirs[seed])] for seed in seeds})


def pairs(all_cells: Sequence[CellResults], measure: str, apart: Sequence[str] = ()) -> list[Difference]:
    """Differences of all cells that differ in exactly one axis: a difference in two axes has no single cause.

    apart: axes that change the task itself, such as frames; measures are not compared across them.
    """
    chosen = [(one, other) for one, other in combinations(all_cells, 2) if len(axes := _differing(one, other)) == 1
              and not axes & set(apart)]  # fmt: skip
    return [gap for one, other in chosen if (gap := difference(one, other, measure))]


def control_of(cell: CellResults, all_cells: Sequence[CellResults]) -> CellResults | None:
    """The control that differs from this cell in exactly one axis; None for a control, or without one."""
    if cell.is_control:
        return None
    return next((other for other in all_cells if other.is_control and len(_differing(cell, other)) == 1), None)


def against_control(cell: CellResults, all_cells: Sequence[CellResults], measure: str) -> Difference | None:
    """A cell minus its control; None without a control or without a common seed."""
    control = control_of(cell, all_cells)
    return difference(cell, control, measure) if control else None


def effect(all_cells: Sequence[CellResults], contrast: Contrast, measure: str) -> Effect:
    """The effect of a contrast, averaged over all pairs of cells that differ only in its axis.

    Pairs are averaged within a seed, and the interval is over seeds: pairs of one seed share its data and noise, so
    they are not independent.  Seeds without all pairs are left out, because all seeds must average the same pairs.
    """
    couples = [
        (one, other)
        for one in all_cells
        for other in all_cells
        if one.axes.get(contrast.axis) == contrast.better
        and other.axes.get(contrast.axis) == contrast.other
        and _differing(one, other) == {contrast.axis}
        and one.values(measure).keys() & other.values(measure).keys()
    ]
    parts = tuple(gap for one, other in couples if (gap := difference(one, other, measure)))
    complete = sorted(set.intersection(*(set(gap.seeds) for gap in parts))) if parts else []
    matched = {seed: [(a.values(measure)[seed], b.values(measure)[seed]) for a, b in couples] for seed in complete}
    first, second = contrast.names
    return Effect(contrast, measure, _averaged(first, second, matched) if matched else None, parts)


def _averaged(first: str, second: str, matched: Mapping[int, Sequence[tuple[float, float]]]) -> Difference:
    """The mean difference of each seed, and Student's interval over seeds.  matched: seed -> its pairs."""
    absolute = [statistics.fmean(ours - theirs for ours, theirs in pairs) for pairs in matched.values()]
    relative = None
    if all(theirs > 0 for pairs in matched.values() for _, theirs in pairs):
        relative = mean_over_seeds([statistics.fmean(a / b - 1 for a, b in pairs) for pairs in matched.values()])
    return Difference(first, second, mean_over_seeds(absolute), relative, tuple(matched))


def _differing(one: CellResults, other: CellResults) -> set[str]:
    """The axes of both cells with different values; a reference may lack some axes."""
    return {axis for axis in one.axes.keys() & other.axes.keys() if one.axes[axis] != other.axes[axis]}


def grouped(
    all_cells: Sequence[CellResults], contrasts: Sequence[Contrast], measure: str, apart: Sequence[str] = ()
) -> dict[str, list[Difference]]:
    """Every difference once: of the declared contrasts, against the control, and of the other pairs."""
    declared: list[Difference] = []
    for contrast in contrasts:
        estimated = effect(all_cells, contrast, measure)
        if estimated.overall and len(estimated.parts) > 1:
            declared.append(estimated.overall)
        declared += estimated.parts
    known = {frozenset((gap.first, gap.second)) for gap in declared}
    mixing = [cell for cell in all_cells if not cell.is_control]
    others = [gap for gap in pairs(mixing, measure, apart) if frozenset((gap.first, gap.second)) not in known]
    against = [gap for cell in mixing if (gap := against_control(cell, all_cells, measure))]
    groups = {"declared contrasts": declared, "against identity": against, "other pairs of cells": others}
    return {title: gaps for title, gaps in groups.items() if gaps}
