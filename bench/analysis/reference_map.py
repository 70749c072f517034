"""Every mixer relative to a reference mixer, by number of frames: which is faster, and which stores less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.sweep.outcome import STATUS_WORDS
from temporal_zoo._support.statistics import Interval

from .crossover import REFERENCE, ratios, rivals
from .curves import STORED, TIME, Curve, Metric, Panel

# Lower limits of the three degrees, as factors: the second degree is a factor between 1.5 and 3.
_DEGREES = (1.0, 1.5, 3.0)
_WORDS = {TIME.name: "time of one {step}", STORED.name: "stored for backward, {step}"}


@dataclass(frozen=True)
class MapCell:
    """The text of a cell and its kind: "less1" to "less3", "same", "more1" to "more3", or "" without a ratio."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class ReferenceMap:
    """The ratios mixer / reference of one metric in one panel; `rows` holds a mixer and its cell for each length."""

    title: str
    reference: str
    lengths: tuple[int, ...]
    rows: tuple[tuple[str, tuple[MapCell, ...]], ...]


def reference_maps(panel: Panel) -> list[ReferenceMap]:
    """A map of times and one of stored bytes; none if the panel has only one mixer.

    The reference is `flash`, or the first mixer of a panel without it.
    """
    reference = next((curve for curve in panel.curves if curve.mixer.partition(":")[0] == REFERENCE), panel.curves[0])
    others = rivals(panel, reference)
    return [
        ReferenceMap(
            f"{_WORDS[metric.name].format(step=panel.step)}, relative to {reference.mixer}",
            reference.mixer,
            tuple(panel.lengths),
            tuple((curve.mixer, _cells(curve, reference, metric, panel.lengths)) for curve in others),
        )
        for metric in (TIME, STORED)
        if panel.measured(metric) and others
    ]


def _cells(curve: Curve, reference: Curve, metric: Metric, lengths: Sequence[int]) -> tuple[MapCell, ...]:
    by_frames = ratios(curve, reference, metric)
    return tuple(
        _ratio_cell(by_frames[frames])
        if frames in by_frames
        else MapCell(STATUS_WORDS.get(curve.status(frames) or "", "-"))
        for frames in lengths
    )


def _ratio_cell(ratio: Interval) -> MapCell:
    if ratio.contains(1):
        return MapCell(f"≈ {_short(ratio.value)}", "same")
    sign, kind = ("▼", "less") if ratio.value < 1 else ("▲", "more")
    factor = max(ratio.value, 1 / ratio.value)
    return MapCell(f"{sign} {_short(ratio.value)}", f"{kind}{sum(factor >= limit for limit in _DEGREES)}")


def _short(value: float) -> str:
    """At most four digits, so that a map fits on a narrow screen."""
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:,.0f}"
