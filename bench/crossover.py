"""From which length on one mixer is faster, or stores less, than another: measured curves that cross, in sentences.

Between two measured lengths a curve is taken as straight on logarithmic axes.  Where the ratio of two curves passes one
is the crossing; passes of the ratios at the edges of both intervals are its interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from .curves import STORED, TIME, Curve, Metric, Panel
from .words import number

# What every mixer has to beat: attention that does not store its weights.
YARDSTICK = "flash"
_VERBS = {TIME.name: "faster than", STORED.name: "stores less than"}


@dataclass(frozen=True)
class Crossing:
    """Where the ratio of a curve to another passes one: `at` frames, between `low` and `high` given the intervals.

    `falls` says that the first curve is the better one above; an edge is None where it lies outside the lengths.
    """

    at: float
    falls: bool
    low: float | None
    high: float | None


def crossings(ratios: Mapping[int, float]) -> list[tuple[float, bool]]:
    """Lengths at which ratios (by frames, ascending) pass one, and whether they fall there."""
    found = []
    for (a, above), (b, below) in itertools.pairwise(ratios.items()):
        if (above >= 1) != (below >= 1):
            share = math.log(above) / (math.log(above) - math.log(below))
            found.append((a * (b / a) ** share, below < above))
    return found


def compare(curve: Curve, other: Curve, metric: Metric) -> tuple[dict[int, float], list[Crossing]]:
    """Ratios of a curve to another at the lengths that both have, and where these pass one."""
    ours, theirs = curve.points(metric), other.points(metric)
    shared = [frames for frames in sorted(ours) if ours[frames] > 0 and theirs.get(frames, 0) > 0]
    ratios = {frames: ours[frames] / theirs[frames] for frames in shared}
    lows = highs = ratios
    if metric is TIME:
        mine, others = curve.between(), other.between()
        lows = {frames: mine[frames][0] / others[frames][1] for frames in shared}
        highs = {frames: mine[frames][1] / others[frames][0] for frames in shared}
    found = []
    for at, falls in crossings(ratios):
        edges = [_nearest(at, falls, edge) for edge in ((lows, highs) if falls else (highs, lows))]
        found.append(Crossing(at, falls, *edges))
    return ratios, found


def sentences(panel: Panel, yardstick: str = YARDSTICK) -> list[str]:
    """One sentence for every mixer and metric: where it is better than `yardstick`, or that it never is in range."""
    other = next((curve for curve in panel.curves if curve.mixer.partition(":")[0] == yardstick), None)
    if other is None:
        return []
    found = []
    for curve in panel.curves:
        if curve is other or curve.declared(TIME) == "1":  # a control mixes nothing: that is no race
            continue
        for metric in (TIME, STORED):
            ratios, passes = compare(curve, other, metric)
            if len(ratios) > 1:
                found.append(_sentence(curve, other, metric, ratios, passes))
    return found


def _sentence(curve: Curve, other: Curve, metric: Metric, ratios: dict[int, float], passes: list[Crossing]) -> str:
    claim = f"{curve.mixer} {'is ' if metric is TIME else ''}{_VERBS[metric.name]} {other.mixer}"
    shortest, longest = min(ratios), max(ratios)
    times = f"at {longest} frames {number(ratios[longest])} times its {'time' if metric is TIME else 'bytes'}"
    if not passes:
        if all(ratio == 1 for ratio in ratios.values()):
            return f"{curve.mixer} and {other.mixer} store the same from L = {shortest} to {longest}."
        where = "at every length" if ratios[shortest] < 1 else "never in range"
        return f"{claim}: {where}, L = {shortest} to {longest}; {times}."
    parts = [f"{'above' if each.falls else 'below'} L = {each.at:.0f}{_interval(each)}" for each in passes]
    return f"{claim} {' and '.join(parts)}; {times}."


def _interval(crossing: Crossing) -> str:
    if crossing.low == crossing.at == crossing.high:
        return ""
    low = "the shortest" if crossing.low is None else f"{crossing.low:.0f}"
    high = "the longest" if crossing.high is None else f"{crossing.high:.0f}"
    return f" ({low} to {high}, by their intervals)"


def _nearest(at: float, falls: bool, ratios: Mapping[int, float]) -> float | None:
    """The crossing of other ratios that belongs to one at `at`: the nearest in the same direction."""
    same = [place for place, down in crossings(ratios) if down == falls]
    return min(same, key=lambda place: abs(math.log(place / at)), default=None)
