"""From which length on one mixer is faster, or stores less, than another: measured curves that cross, in sentences.

Between two measured lengths a curve is taken as straight on logarithmic axes.  Where the ratio of two curves passes one
is the crossing; passes of the ratios at the edges of both intervals are its interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from temporal_zoo._support.units import number

from .curves import STORED, TIME, Curve, Metric, Panel

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


@dataclass(frozen=True)
class Ratios:
    """Of a curve to another at the lengths that both have, ascending, and the edges of their intervals."""

    values: dict[int, float]
    lows: dict[int, float]
    highs: dict[int, float]

    @property
    def differ(self) -> bool:
        """Whether any has an interval without one; what is counted has no interval, and differs where it is not one."""
        return any(low > 1 or self.highs[frames] < 1 for frames, low in self.lows.items())

    @property
    def crossings(self) -> list[Crossing]:
        """Where they pass one."""
        found = []
        for at, falls in crossings(self.values):
            low, high = (self.lows, self.highs) if falls else (self.highs, self.lows)
            found.append(Crossing(at, falls, _nearest(at, falls, low), _nearest(at, falls, high)))
        return found


def compare(curve: Curve, other: Curve, metric: Metric) -> Ratios:
    """A curve by another; the intervals of both are independent, so that their logarithms add up as squares."""
    ours, theirs = curve.points(metric), other.points(metric)
    shared = [frames for frames in sorted(ours) if ours[frames] > 0 and theirs.get(frames, 0) > 0]
    values = {frames: ours[frames] / theirs[frames] for frames in shared}
    if metric is not TIME:
        return Ratios(values, values, values)
    mine, others, lows, highs = curve.between(), other.between(), {}, {}
    for frames, value in values.items():
        (low, high), (other_low, other_high) = mine[frames], others[frames]
        a, b = ours[frames], theirs[frames]
        lows[frames] = value * math.exp(-math.hypot(math.log(a / low), math.log(other_high / b)))
        highs[frames] = value * math.exp(math.hypot(math.log(high / a), math.log(b / other_low)))
    return Ratios(values, lows, highs)


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
            if len((ratios := compare(curve, other, metric)).values) > 1:
                found.append(_sentence(curve, other, metric, ratios))
    return found


def _sentence(curve: Curve, other: Curve, metric: Metric, ratios: Ratios) -> str:
    claim = f"{curve.mixer} {'is ' if metric is TIME else ''}{_VERBS[metric.name]} {other.mixer}"
    shortest, longest = min(ratios.values), max(ratios.values)
    last = number(ratios.values[longest])
    times = f"at {longest} frames {last} times its {'time' if metric is TIME else 'bytes'}"
    if not ratios.differ:
        both = f"{curve.mixer} and {other.mixer}"
        if metric is not TIME:
            return f"{both} store the same from L = {shortest} to {longest}."
        return f"{both} take the same time within their intervals, L = {shortest} to {longest}; {times}."
    if not (passes := ratios.crossings):
        where = "at every length" if ratios.values[shortest] < 1 else "never in range"
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
