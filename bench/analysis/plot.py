"""Plots time and memory against frames on logarithmic axes, one row of axes for each setting."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.sweep.outcome import STATUS_WORDS
from temporal_zoo._support.files import written_whole

from .curves import PEAK, STORED, TIME, Curve, Metric, Panel

_STYLES = {"train": "-", "forward": "--", "sample": ":"}
# Height of the mark of a case without a value, and distance of several marks, as fractions of the axes' height.
_TOP, _BELOW = 0.97, 0.05
_DPI = 120
_MAX_PIXELS = 2**16 - 1  # matplotlib's limit for width and height
_MARKERS = "os^Dv<>p"
_NAMES = {"mixer": "bare mixer", "model": "whole model"}
_TITLES = {TIME.name: "time of one step and its interval", STORED.name: "stored for backward",
           PEAK.name: "peak above the memory before the step"}  # fmt: skip

_SETTINGS: Any = {
    # Fixed identifiers, so that equal data gives an equal file.
    "svg.hashsalt": "bench",
    # A dollar sign in a name does not begin a formula.
    "text.parse_math": False,
}


@matplotlib.rc_context(_SETTINGS)
def save(panels: Sequence[Panel], path: Path) -> None:
    """Draws a PNG with a row for each setting: time on the left, stored bytes on the right."""
    rows = settings(panels)
    figure = Figure(figsize=(11, 0.6 + 4.2 * len(rows)), layout="constrained")
    looks = _looks(panels)
    for group, (left, right) in zip(rows.values(), figure.subplots(len(rows), 2, squeeze=False), strict=True):
        _draw(left, group, TIME, looks)
        _draw(right, _storing(group), STORED, looks)
        left.set_title(f"{_NAMES[group[0].case.level]}: {_TITLES[TIME.name]}", loc="left", fontsize=10)
        right.set_title(f"{_NAMES[group[0].case.level]}: {_TITLES[STORED.name]}", loc="left", fontsize=10)
    lines = list(rows)
    if any(panel.waited for panel in panels):
        lines.append("times are too long: other programs used the processors")
    figure.suptitle("\n".join(lines), fontsize=9, x=0.01, ha="left")
    with written_whole(path) as file:
        figure.savefig(file, dpi=min(_DPI, _MAX_PIXELS / figure.get_figheight()), format="png")


@matplotlib.rc_context(_SETTINGS)
def svg(panels: Sequence[Panel]) -> str:
    """Draws the panels of one setting as a self-contained SVG: the time of each step, stored bytes and peaks."""
    drawn = [([panel], TIME, f"time of one {panel.step}") for panel in panels]
    for metric in (STORED, PEAK):
        if any(panel.measured(metric) for panel in _storing(panels)):
            drawn.append((_storing(panels), metric, _TITLES[metric.name]))
    figure = Figure(figsize=(10.5, 3.9 * math.ceil(len(drawn) / 2)), layout="constrained")
    grid = figure.subplots(math.ceil(len(drawn) / 2), 2, squeeze=False).ravel()
    for axes, (group, metric, title) in zip(grid, drawn, strict=False):
        _draw(axes, group, metric, _looks(panels))
        axes.set_title(title, loc="left", fontsize=11)
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def settings(panels: Sequence[Panel]) -> dict[str, list[Panel]]:
    """Setting -> its panels, one per mode."""
    groups: dict[str, list[Panel]] = {}
    for panel in panels:
        groups.setdefault(panel.case.setting, []).append(panel)
    return groups


def _looks(panels: Sequence[Panel]) -> dict[str, tuple[str, str]]:
    """Mixer -> its colour and marker, so that overlapping curves remain distinct."""
    mixers = dict.fromkeys(curve.mixer for panel in panels for curve in panel.curves)
    return {mixer: (f"C{index % 10}", _MARKERS[index % len(_MARKERS)]) for index, mixer in enumerate(mixers)}


def _storing(panels: Sequence[Panel]) -> list[Panel]:
    """The panels of training, because only training stores for backward; all panels if there are none."""
    return [panel for panel in panels if panel.case.mode == "train"] or list(panels)


def _draw(axes: Axes, panels: Sequence[Panel], metric: Metric, looks: dict[str, tuple[str, str]]) -> None:
    lengths = sorted({frames for panel in panels for frames in panel.lengths})
    marked: Counter[int] = Counter()
    for panel in panels:
        for curve in panel.curves:
            color, marker = looks[curve.mixer]
            points = {frames: value / metric.scale for frames, value in curve.points(metric).items() if value > 0}
            if curve.points(metric):
                # Logarithmic axes cannot show a curve of zeros; the legend names it.
                mode = panel.case.mode if metric is TIME and len(panels) > 1 else ""
                label = _label(curve, mode, metric) if points else f"{curve.mixer}: nothing"
                axes.plot(list(points), list(points.values()), _STYLES[panel.case.mode], label=label,
                          color=color, marker=marker, markersize=5, fillstyle="none")  # fmt: skip
            if metric is TIME and (times := curve.intervals(TIME)):
                low, high = zip(*((time.low, time.high) for time in times.values()), strict=True)
                axes.vlines(list(times), low, high, color, linewidth=4, alpha=0.35)
            _mark_ends(axes, curve, color, marked)
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(frames) for frames in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    if any(value > 0 for panel in panels for curve in panel.curves for value in curve.points(metric).values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no value above zero", ha="center", va="center", transform=axes.transAxes)
    axes.set_xlabel("frames")
    axes.set_ylabel(f"{metric.unit} per row" if panels[0].case.total else metric.unit)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)


def _label(curve: Curve, mode: str, metric: Metric) -> str:
    slope, declared = curve.slope(metric), curve.declared(metric)
    power = "" if slope is None else f", T^{slope:.2f}"
    suffix = f" (declared {declared})" if declared else ""
    return f"{curve.mixer}{mode and f' {mode}'}{power}{suffix}"


def _mark_ends(axes: Axes, curve: Curve, color: str, marked: Counter[int]) -> None:
    """Marks every length without a value by a cross near the top and its status; several marks are stacked."""
    for frames in curve.lengths:
        if (status := curve.status(frames)) in STATUS_WORDS:
            height = _TOP - _BELOW * marked[frames]
            marked[frames] += 1
            transform = axes.get_xaxis_transform()  # x in frames, y as a fraction of the height
            axes.plot([frames], [height], marker="x", markersize=9, color=color, transform=transform, clip_on=False)
            # The text is inside the axes: to the right of the first length, to the left of the others.
            first = frames == min(curve.lengths)
            axes.annotate(STATUS_WORDS[status], (frames, height), xycoords=transform, fontsize=7, color=color,
                          xytext=(8 if first else -8, -3), textcoords="offset points",
                          ha="left" if first else "right")  # fmt: skip
