"""Results as curves over the number of frames, one per mixer, with their growth, for tables and plots."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.sweep.case import Case
from bench.sweep.outcome import Outcome
from bench.sweep.results import CaseResult
from temporal_zoo._support.statistics import Interval

from . import fit

MIB = 2**20


@dataclass(frozen=True)
class Metric:
    """A measured quantity: its name, its title, its unit, and the function that reads it from an outcome.

    `declared` is the name under which mixers declare its growth, if they do.
    """

    name: str
    title: str
    unit: str
    scale: float
    value: Callable[[Outcome], float | None]
    declared: str | None = None


TIME = Metric("time", "time of one {step}", "ms", 1, lambda o: o.time_ms.p50 if o.time_ms else None, "time")
PROCESSOR = Metric(
    "processor",
    "processor time of one {step}, all threads, mean",
    "ms",
    1,
    lambda o: o.time_ms.processor if o.time_ms else None,
    "time",
)
STORED = Metric("stored", "stored for backward, counted exactly", "MiB", MIB, lambda o: o.stored_bytes, "memory")
PEAK = Metric(
    "peak",
    "{counted} during one step, above before it",
    "MiB",
    MIB,
    lambda o: o.memory.above if o.memory else None,
)
METRICS = (TIME, PROCESSOR, STORED, PEAK)


@dataclass(frozen=True)
class Curve:
    """The results of one mixer in one setting, by number of frames, ascending."""

    mixer: str
    results: tuple[CaseResult, ...]

    @property
    def lengths(self) -> list[int]:
        """Numbers of frames of all cases."""
        return [result.case.frames for result in self.results]

    def status(self, frames: int) -> str | None:
        """The status of the case with that number of frames; None if there is no such case."""
        return next((r.outcome.status for r in self.results if r.case.frames == frames), None)

    def points(self, metric: Metric) -> dict[int, float]:
        """Frames -> value, for all measured lengths; per row if rows vary with frames."""
        values = {r.case.frames: (metric.value(r.outcome), _divisor(r.case)) for r in self.results}
        return {frames: value / rows for frames, (value, rows) in values.items() if value is not None}

    def intervals(self, metric: Metric) -> dict[int, Interval]:
        """Frames -> value of `points` with its interval; only times have an uncertainty."""
        if metric is not TIME:
            return {frames: Interval(value, value, value) for frames, value in self.points(metric).items()}
        times = [(r.case, r.outcome.time_ms.interval) for r in self.results if r.outcome.time_ms]
        return {
            case.frames: Interval(*(limit / _divisor(case) for limit in (time.value, time.low, time.high)))
            for case, time in times
        }

    def exponents(self, metric: Metric) -> dict[tuple[int, int], float | None]:
        """(shorter, longer) -> exponent, for each two successive lengths if both were measured."""
        points, lengths = self.points(metric), self.lengths
        pairs = [(a, b) for a, b in itertools.pairwise(lengths) if a in points and b in points]
        return {(a, b): fit.exponents((a, b), (points[a], points[b]))[0] for a, b in pairs}

    def slope(self, metric: Metric) -> float | None:
        """Log-log slope over all measured lengths."""
        points = self.points(metric)
        return fit.slope(list(points), list(points.values()))

    def slope_error(self, metric: Metric) -> float:
        """Uncertainty of the slope, from the margins of the times; 0 for other metrics."""
        if metric is not TIME:
            return 0.0
        margins = {r.case.frames: r.outcome.time_ms.margin for r in self.results if r.outcome.time_ms}
        return fit.slope_error(list(margins), list(margins.values()))

    def declared(self, metric: Metric) -> str | None:
        """The growth that the mixer declares, "T" or "T^2"; None if it declares none for this metric."""
        declared = next((r.outcome.declared for r in self.results if r.outcome.declared), {})
        return declared.get(metric.declared) if metric.declared else None

    def quadratic(self, metric: Metric) -> fit.Quadratic | None:
        """The fit a + b L + c L^2."""
        points = self.points(metric)
        return fit.quadratic(list(points), list(points.values()))


@dataclass(frozen=True)
class Panel:
    """All curves of one level, mode and setting, which share a table."""

    case: Case
    curves: tuple[Curve, ...]

    @property
    def lengths(self) -> list[int]:
        """Numbers of frames of all curves."""
        return sorted({frames for curve in self.curves for frames in curve.lengths})

    @property
    def step(self) -> str:
        """The timed step, in words."""
        if self.case.mode != "train":
            return {"forward": "forward pass", "sample": "sampling step"}[self.case.mode]
        return "forward and backward pass" if self.case.level == "mixer" else "training step"

    def title(self, metric: Metric) -> str:
        """The title of a metric, with its unit."""
        counted = next((r.outcome.memory.counted for c in self.curves for r in c.results if r.outcome.memory), "peak")
        per_row = " per row" if self.case.total else ""
        return f"{metric.title.format(step=self.step, counted=counted)} ({metric.unit}{per_row})"

    @property
    def waited(self) -> bool:
        """Whether steps waited for processors that other programs used."""
        return any(r.outcome.time_ms.waited for c in self.curves for r in c.results if r.outcome.time_ms)

    @property
    def processes(self) -> int:
        """The largest number of processes of a case."""
        times = [r.outcome.time_ms for c in self.curves for r in c.results]
        return max((each.processes for each in times if each), default=1)

    def measured(self, metric: Metric) -> bool:
        """Whether any curve has a value of `metric`."""
        return any(curve.points(metric) for curve in self.curves)


def _divisor(case: Case) -> int:
    """Rows, if they vary with frames."""
    return case.rows or 1 if case.total else 1


def panels(results: Sequence[CaseResult]) -> list[Panel]:
    """Groups results into panels and curves, in their order."""
    groups: dict[tuple[str, str], dict[str, list[CaseResult]]] = {}
    for result in results:
        group = groups.setdefault((result.case.setting, result.case.mode), {})
        group.setdefault(result.case.mixer, []).append(result)
    return [
        Panel(
            next(iter(group.values()))[0].case,
            tuple(Curve(mixer, _by_frames(rs)) for mixer, rs in group.items()),
        )
        for group in groups.values()
    ]


def _by_frames(results: Sequence[CaseResult]) -> tuple[CaseResult, ...]:
    """Results in ascending length; of several with one length (other fields differ), only the last."""
    return tuple(result for _, result in sorted({result.case.frames: result for result in results}.items()))


def growth(panel: Panel) -> list[dict[str, Any]]:
    """The measured growth of every curve and metric of a panel, as plain values in bytes and milliseconds."""
    rows = []
    for curve in panel.curves:
        for metric in METRICS:
            if not (points := curve.points(metric)):
                continue
            law = curve.quadratic(metric)
            rows.append(
                {
                    "level": panel.case.level,
                    "mode": panel.case.mode,
                    "mixer": curve.mixer,
                    "metric": metric.name,
                    "values": {str(frames): value for frames, value in points.items()},
                    "exponents": {f"{a}-{b}": p for (a, b), p in curve.exponents(metric).items()},
                    "slope": curve.slope(metric),
                    "slope_error": curve.slope_error(metric),
                    "declared": curve.declared(metric),
                    "fit": law and {"a": law.constant, "b": law.linear, "c": law.quadratic, "bend": law.bend},
                    "quadratic_share": law and {str(frames): law.quadratic_fraction(frames) for frames in points},
                }
            )
    return rows
