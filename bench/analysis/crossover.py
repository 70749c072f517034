"""The lengths at which one mixer becomes faster, or stores less, than another, from measured curves.

Between two measured lengths a curve is a straight line on logarithmic axes.  Curves cross where their ratio is 1.  The
interval of a crossing lies between the lengths at which the limits of the ratio's intervals are 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from temporal_zoo._support.statistics import Interval, ratio
from temporal_zoo._support.units import number

from .curves import STORED, TIME, Curve, Metric, Panel

# Sentences compare every mixer with fused attention, which does not store its weights.
REFERENCE = "flash"
_VERBS = {TIME.name: "faster than", STORED.name: "stores less than"}


@dataclass(frozen=True)
class Crossing:
    """The length `at` which the ratio of two curves is 1, and the limits of its interval.

    `falls` says that the ratio is below 1 above that length.  A limit is None if it is outside the measured lengths.
    """

    at: float
    falls: bool
    low: float | None
    high: float | None


def ratios(curve: Curve, other: Curve, metric: Metric) -> dict[int, Interval]:
    """Frames -> `curve` / `other`, with its interval, at all lengths that both have, ascending."""
    values, base = curve.intervals(metric), other.intervals(metric)
    return {
        frames: ratio(values[frames], base[frames])
        for frames in sorted(values.keys() & base.keys())
        if values[frames].value > 0 and base[frames].value > 0
    }


def crossings(by_frames: Mapping[int, Interval]) -> list[Crossing]:
    """The crossings of two curves, from their ratios by frames (ascending)."""
    lows, highs = ([(frames, getattr(each, limit)) for frames, each in by_frames.items()] for limit in ("low", "high"))
    result = []
    for at, falls in _lengths_at_1([(frames, each.value) for frames, each in by_frames.items()]):
        low, high = (lows, highs) if falls else (highs, lows)
        result.append(Crossing(at, falls, _nearest(at, falls, low), _nearest(at, falls, high)))
    return result


def rivals(panel: Panel, reference: Curve) -> list[Curve]:
    """The curves to compare with the reference: all others except controls, whose time does not grow by design."""
    return [curve for curve in panel.curves if curve is not reference and curve.declared(TIME) != "1"]


def sentences(panel: Panel) -> list[str]:
    """For every mixer and metric, a sentence that says where it is better than `REFERENCE`."""
    reference = next((curve for curve in panel.curves if curve.mixer.partition(":")[0] == REFERENCE), None)
    if reference is None:
        return []
    return [
        _sentence(curve, reference, metric, by_frames)
        for curve in rivals(panel, reference)
        for metric in (TIME, STORED)
        if len(by_frames := ratios(curve, reference, metric)) > 1
    ]


def _sentence(curve: Curve, other: Curve, metric: Metric, by_frames: Mapping[int, Interval]) -> str:
    shortest, longest = min(by_frames), max(by_frames)
    times = f"at {longest} frames {number(by_frames[longest].value)} times its {'time' if metric is TIME else 'bytes'}"
    if all(each.contains(1) for each in by_frames.values()):
        both = f"{curve.mixer} and {other.mixer}"
        if metric is not TIME:
            return f"{both} store the same from L = {shortest} to {longest}."
        return f"{both} take the same time within their intervals, L = {shortest} to {longest}; {times}."
    claim = f"{curve.mixer} {'is ' if metric is TIME else ''}{_VERBS[metric.name]} {other.mixer}"
    if not (all_crossings := crossings(by_frames)):
        where = "at every length" if by_frames[shortest].value < 1 else "never in range"
        return f"{claim}: {where}, L = {shortest} to {longest}; {times}."
    parts = [f"{'above' if each.falls else 'below'} L = {each.at:.0f}{_limits(each)}" for each in all_crossings]
    return f"{claim} {' and '.join(parts)}; {times}."


def _limits(crossing: Crossing) -> str:
    if crossing.low == crossing.at == crossing.high:
        return ""
    low = "the shortest" if crossing.low is None else f"{crossing.low:.0f}"
    high = "the longest" if crossing.high is None else f"{crossing.high:.0f}"
    return f" ({low} to {high}, by their intervals)"


def _lengths_at_1(points: Sequence[tuple[int, float]]) -> list[tuple[float, bool]]:
    """The lengths at which a line through (frames, ratio) is 1, and whether it falls there."""
    lengths = []
    for (a, above), (b, below) in itertools.pairwise(points):
        if (above >= 1) != (below >= 1):
            fraction = math.log(above) / (math.log(above) - math.log(below))
            lengths.append((a * (b / a) ** fraction, below < above))
    return lengths


def _nearest(at: float, falls: bool, points: Sequence[tuple[int, float]]) -> float | None:
    """The crossing of another line that is nearest to `at` and has the same direction."""
    same = [length for length, down in _lengths_at_1(points) if down == falls]
    return min(same, key=lambda length: abs(math.log(length / at)), default=None)
