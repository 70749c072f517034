"""What the results of an ablation say: means over seeds, differences that are paired by seed, and effects of an axis.

The trials of one seed share data order and noise, so the luck of the seed cancels in the difference of two cells; it
does not cancel between their means.  Differences are taken first and averaged over seeds after, and it is the spread
over seeds that gives the interval (Student's t).  Every measure is better when it is lower.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from diffusion.ablations import AblationError
from diffusion.ablations.result import Result, cell_name, is_number
from diffusion.evaluation.uncertainty import Estimate, mean_over_seeds

FLOOR = "identity"  # the mixer that mixes nothing


@dataclass(frozen=True)
class Contrast:
    """What an ablation claims before it is run: along an axis, one value has lower measures than another."""

    axis: str
    better: str
    other: str

    @property
    def words(self) -> tuple[str, str]:
        """Both values with their axis, such as "directions both"."""
        return f"{self.axis} {self.better}", f"{self.axis} {self.other}"


@dataclass(frozen=True)
class CellResults:
    """All seeds of one cell.  axes: axis -> value.  trials: seed -> result."""

    axes: dict[str, str]
    reference: bool
    trials: dict[int, Result]

    @property
    def name(self) -> str:
        """The cell in words."""
        return cell_name(self.axes)

    @property
    def is_floor(self) -> bool:
        """Whether this is the control whose frames know nothing of each other."""
        return FLOOR in self.axes.values()

    def measure(self, name: str) -> Estimate | None:
        """The mean over the seeds that have this measure; None where no seed has it."""
        values = self.values(name)
        return mean_over_seeds(list(values.values())) if values else None

    def cost(self, name: str) -> float | None:
        """The median over seeds: parameters and stored bytes are the same for all, and seconds have outliers."""
        values = [trial.costs[name] for trial in self.trials.values() if name in trial.costs]
        return statistics.median(values) if values else None

    def values(self, measure: str) -> dict[int, float]:
        """Seed -> measure, for the seeds that have it."""
        return {seed: trial.measures[measure] for seed, trial in self.trials.items() if measure in trial.measures}


@dataclass(frozen=True)
class Difference:
    """Of the first less the second, at the same seeds; negative where the first is better.

    relative: in parts of the second; None where the second is zero or below, as some distances may be.
    """

    first: str
    second: str
    absolute: Estimate
    relative: Estimate | None
    seeds: tuple[int, ...]

    @property
    def shown(self) -> Estimate:
        """The relative difference where there is one: what verdicts rest on."""
        return self.absolute if self.relative is None else self.relative

    @property
    def lower(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.shown.margin is not None and self.shown.value + self.shown.margin < 0

    @property
    def higher(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.shown.margin is not None and self.shown.value - self.shown.margin > 0


@dataclass(frozen=True)
class Effect:
    """What a contrast does to a measure: over all pairs of cells that differ in nothing else, and in each of them.

    overall: None while no seed has every pair.
    """

    contrast: Contrast
    measure: str
    overall: Difference | None
    parts: tuple[Difference, ...]


def cells(results: Iterable[Result]) -> list[CellResults]:
    """The seeds of each cell together, in the order of the results, lines of reference last.

    Raises: AblationError when a seed of a cell came twice.
    """
    found: dict[tuple[tuple[str, str], ...], CellResults] = {}
    for result in results:
        cell = found.setdefault(tuple(sorted(result.cell.items())), CellResults(result.cell, result.reference, {}))
        if result.seed in cell.trials:
            raise AblationError(f"{result.name} has two results; a seed of a cell counts once")
        cell.trials[result.seed] = result
    return sorted(found.values(), key=lambda cell: cell.reference + cell.is_floor)


def measures(found: Sequence[CellResults]) -> list[str]:
    """The names of all measures, in the order in which results hold them."""
    return list(dict.fromkeys(name for cell in found for trial in cell.trials.values() for name in trial.measures))


def costs(found: Sequence[CellResults]) -> list[str]:
    """The names of all costs, in the order in which results hold them."""
    return list(dict.fromkeys(name for cell in found for trial in cell.trials.values() for name in trial.costs))


def ordered_axis(found: Sequence[CellResults]) -> str | None:
    """The first axis with several values, all numbers, such as frames; None when there is none."""
    axes = dict.fromkeys(axis for cell in found for axis in cell.axes)
    for axis in axes:
        values = {cell.axes[axis] for cell in found if axis in cell.axes}
        if len(values) > 1 and all(map(is_number, values)):
            return axis
    return None


def difference(first: CellResults, second: CellResults, measure: str) -> Difference | None:
    """Of two cells at the seeds that both have; None when there is no such seed."""
    ours, theirs = first.values(measure), second.values(measure)
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    if not seeds:
        return None
    return _averaged(first.name, second.name, {seed: [(ours[seed], theirs[seed])] for seed in seeds})


def pairs(found: Sequence[CellResults], measure: str, apart: Sequence[str] = ()) -> list[Difference]:
    """Of all cells that differ in one axis; what differs in two has no single cause.

    apart: axes such as frames, that change the task itself: measures are not compared across them.
    """
    drawn = [(one, other) for one, other in combinations(found, 2) if len(split := _differing(one, other)) == 1
             and not split & set(apart)]  # fmt: skip
    return [gap for one, other in drawn if (gap := difference(one, other, measure))]


def floor_of(cell: CellResults, found: Sequence[CellResults]) -> CellResults | None:
    """The control that is like this cell in all axes but one; None for itself, and when there is none."""
    if cell.is_floor:
        return None
    return next((other for other in found if other.is_floor and len(_differing(cell, other)) == 1), None)


def against_floor(cell: CellResults, found: Sequence[CellResults], measure: str) -> Difference | None:
    """Of a cell less its control; None where there is no control, or no seed that both have."""
    floor = floor_of(cell, found)
    return difference(cell, floor, measure) if floor else None


def effect(found: Sequence[CellResults], contrast: Contrast, measure: str) -> Effect:
    """The effect of a contrast, averaged over all pairs of cells that differ in nothing else.

    Pairs are averaged within a seed, and the interval is over seeds: pairs of one seed share its data and noise, and
    are not independent of each other.  Seeds that lack a pair are left out, lest the mix of pairs differ among seeds.
    """
    couples = [
        (one, other)
        for one in found
        for other in found
        if one.axes.get(contrast.axis) == contrast.better
        and other.axes.get(contrast.axis) == contrast.other
        and _differing(one, other) == {contrast.axis}
        and one.values(measure).keys() & other.values(measure).keys()
    ]
    parts = tuple(gap for one, other in couples if (gap := difference(one, other, measure)))
    complete = sorted(set.intersection(*(set(gap.seeds) for gap in parts))) if parts else []
    matched = {seed: [(a.values(measure)[seed], b.values(measure)[seed]) for a, b in couples] for seed in complete}
    first, second = contrast.words
    return Effect(contrast, measure, _averaged(first, second, matched) if matched else None, parts)


def _averaged(first: str, second: str, matched: Mapping[int, Sequence[tuple[float, float]]]) -> Difference:
    """seed -> its pairs: the mean difference of each seed, and Student's interval over seeds."""
    absolute = [statistics.fmean(ours - theirs for ours, theirs in pairs) for pairs in matched.values()]
    relative = None
    if all(theirs > 0 for pairs in matched.values() for _, theirs in pairs):
        relative = mean_over_seeds([statistics.fmean(a / b - 1 for a, b in pairs) for pairs in matched.values()])
    return Difference(first, second, mean_over_seeds(absolute), relative, tuple(matched))


def _differing(one: CellResults, other: CellResults) -> set[str]:
    """The axes that both have, at different values; a line of reference may lack some of the axes."""
    return {axis for axis in one.axes.keys() & other.axes.keys() if one.axes[axis] != other.axes[axis]}


def grouped(
    found: Sequence[CellResults], contrasts: Sequence[Contrast], measure: str, apart: Sequence[str] = ()
) -> dict[str, list[Difference]]:
    """All differences worth a look, each once: those that were declared, those to the control, and the others."""
    declared: list[Difference] = []
    for contrast in contrasts:
        seen = effect(found, contrast, measure)
        if seen.overall and len(seen.parts) > 1:
            declared.append(seen.overall)
        declared += seen.parts
    known = {frozenset((gap.first, gap.second)) for gap in declared}
    mixing = [cell for cell in found if not cell.is_floor]
    others = [gap for gap in pairs(mixing, measure, apart) if frozenset((gap.first, gap.second)) not in known]
    above = [gap for cell in mixing if (gap := against_floor(cell, found, measure))]
    groups = {"declared contrasts": declared, "against identity": above, "other pairs of cells": others}
    return {title: gaps for title, gaps in groups.items() if gaps}
