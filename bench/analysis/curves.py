"""Results as curves over the number of frames, one per mixer, and how they grow: what tables and plots draw."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.sweep.case import Case
from bench.sweep.outcome import Outcome

from . import fit

MIB = 2**20


@dataclass(frozen=True)
class Result:
    """One case and how it ended."""

    case: Case
    outcome: Outcome


@dataclass(frozen=True)
class Metric:
    """A measured quantity: its name in records, what it is called in words, its unit, and where an outcome holds it.

    `declared` is what mixers call its growth, where they declare one.
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
    results: tuple[Result, ...]

    @property
    def lengths(self) -> list[int]:
        """Numbers of frames that were asked for."""
        return [result.case.frames for result in self.results]

    def status(self, frames: int) -> str | None:
        """How the case of that many frames ended, or None when there was none."""
        return next((r.outcome.status for r in self.results if r.case.frames == frames), None)

    def points(self, metric: Metric) -> dict[int, float]:
        """Frames -> value, for the lengths that were measured; per row, where rows vary with frames."""
        values = {r.case.frames: (metric.value(r.outcome), _share(r.case)) for r in self.results}
        return {frames: value / rows for frames, (value, rows) in values.items() if value is not None}

    def between(self) -> dict[int, tuple[float, float]]:
        """Frames -> the interval of the times, in the unit of `points`."""
        timed = [(r.case, r.outcome.time_ms) for r in self.results]
        edges = {case.frames: (t.interval, _share(case)) for case, t in timed if t is not None}
        return {frames: (low / rows, high / rows) for frames, ((low, high), rows) in edges.items()}

    def exponents(self, metric: Metric) -> dict[tuple[int, int], float | None]:
        """(shorter, longer) -> exponent, for neighbouring lengths that were both measured."""
        points, lengths = self.points(metric), self.lengths
        pairs = [(a, b) for a, b in itertools.pairwise(lengths) if a in points and b in points]
        return {(a, b): fit.exponents((a, b), (points[a], points[b]))[0] for a, b in pairs}

    def slope(self, metric: Metric) -> float | None:
        """Log-log slope over all measured lengths."""
        points = self.points(metric)
        return fit.slope(list(points), list(points.values()))

    def slope_error(self, metric: Metric) -> float:
        """How far that slope may be off for the margins of the times; nothing for what is counted."""
        if metric is not TIME:
            return 0.0
        margins = {r.case.frames: r.outcome.time_ms.margin for r in self.results if r.outcome.time_ms}
        return fit.slope_error(list(margins), list(margins.values()))

    def declared(self, metric: Metric) -> str | None:
        """How the mixer says that it grows, "T" or "T^2", where the metric is one that it speaks of."""
        told = next((r.outcome.declared for r in self.results if r.outcome.declared), {})
        return told.get(metric.declared) if metric.declared else None

    def quadratic(self, metric: Metric) -> fit.Quadratic | None:
        """The fit a + b L + c L^2."""
        points = self.points(metric)
        return fit.quadratic(list(points), list(points.values()))


@dataclass(frozen=True)
class Panel:
    """All curves of one level, mode and setting: what belongs into one table."""

    case: Case
    curves: tuple[Curve, ...]

    @property
    def lengths(self) -> list[int]:
        """All numbers of frames that any curve was asked for."""
        return sorted({frames for curve in self.curves for frames in curve.lengths})

    @property
    def step(self) -> str:
        """What is timed, in words."""
        if self.case.mode != "train":
            return {"forward": "forward pass", "sample": "sampling step"}[self.case.mode]
        return "forward and backward pass" if self.case.level == "mixer" else "training step"

    def title(self, metric: Metric) -> str:
        """The metric in words, with its unit."""
        counted = next((r.outcome.memory.counted for c in self.curves for r in c.results if r.outcome.memory), "peak")
        per_row = " per row" if self.case.total else ""
        return f"{metric.title.format(step=self.step, counted=counted)} ({metric.unit}{per_row})"

    @property
    def waited(self) -> bool:
        """Whether other programs had the processor while this was timed."""
        return any(r.outcome.time_ms.waited for c in self.curves for r in c.results if r.outcome.time_ms)

    @property
    def processes(self) -> int:
        """From how many processes the times are; of the case that has the most."""
        times = [r.outcome.time_ms for c in self.curves for r in c.results]
        return max((each.processes for each in times if each), default=1)

    def measured(self, metric: Metric) -> bool:
        """Whether any curve holds a value of `metric`."""
        return any(curve.points(metric) for curve in self.curves)


def _share(case: Case) -> int:
    return case.rows or 1 if case.total else 1


def panels(results: Sequence[Result]) -> list[Panel]:
    """Results sorted into panels and curves, in the order in which they were run."""
    found: dict[tuple[str, str], dict[str, list[Result]]] = {}
    for result in results:
        place = found.setdefault((result.case.setting, result.case.mode), {})
        place.setdefault(result.case.mixer, []).append(result)
    return [
        Panel(
            next(iter(place.values()))[0].case,
            tuple(Curve(mixer, _by_frames(rs)) for mixer, rs in place.items()),
        )
        for place in found.values()
    ]


def _by_frames(results: Sequence[Result]) -> tuple[Result, ...]:
    """Ascending; of several with one number of frames, which differ in what no table shows, the last."""
    return tuple(result for _, result in sorted({result.case.frames: result for result in results}.items()))


def growth(panel: Panel) -> list[dict[str, Any]]:
    """The measured growth of every curve and metric of a panel, as plain values; bytes and milliseconds, not MiB."""
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
                    "quadratic_share": law and {str(frames): law.share(frames) for frames in points},
                }
            )
    return rows
