"""The PNG beside the tables: time and stored bytes against frames, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .case import LEVELS
from .curves import STORED, TIME, Curve, Metric, Panel

_STYLES = {"train": "-", "forward": "--"}
_TOP = 0.97  # of the axes' height: where a case that ended without a number is marked
_NAMES = {"mixer": "bare mixer", "model": "whole model"}


def save(panels: Sequence[Panel], path: Path) -> None:
    """Draws one row of axes per level, time on the left and stored bytes on the right."""
    levels = [level for level in LEVELS if any(panel.case.level == level for panel in panels)]
    mixers = list(dict.fromkeys(curve.mixer for panel in panels for curve in panel.curves))
    colors = {mixer: f"C{index % 10}" for index, mixer in enumerate(mixers)}
    figure = Figure(figsize=(11, 0.6 + 4.2 * len(levels)), layout="constrained")
    grid = figure.subplots(len(levels), 2, squeeze=False)
    for level, (left, right) in zip(levels, grid, strict=True):
        here = [panel for panel in panels if panel.case.level == level]
        _draw(left, here, TIME, colors)
        _draw(right, [panel for panel in here if panel.case.mode == "train"], STORED, colors)
        left.set_title(f"{_NAMES[level]}: time of one step, median", loc="left", fontsize=10)
        right.set_title(f"{_NAMES[level]}: stored for backward", loc="left", fontsize=10)
    settings = list(dict.fromkeys(panel.case.setting for panel in panels))
    if any(panel.waited for panel in panels):
        settings.append("times are too long: other programs had the processor")
    figure.suptitle("\n".join(settings), fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=120)


def _draw(axes: Axes, panels: Sequence[Panel], metric: Metric, colors: dict[str, str]) -> None:
    lengths = sorted({frames for panel in panels for frames in panel.lengths})
    for panel in panels:
        for curve in panel.curves:
            points = {frames: value / metric.scale for frames, value in curve.points(metric).items() if value > 0}
            if curve.points(metric):
                # A curve of zeros has no place on these axes, but is named: nothing stored is a result.
                label = _label(curve, panel.case.mode, metric) if points else f"{curve.mixer}: nothing"
                axes.plot(list(points), list(points.values()), _STYLES[panel.case.mode], label=label,
                          color=colors[curve.mixer], marker="o", markersize=4)  # fmt: skip
            _mark_ends(axes, curve, colors[curve.mixer])
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
        axes.text(0.5, 0.5, "no number above zero", ha="center", va="center", transform=axes.transAxes)
    axes.set_xlabel("frames")
    axes.set_ylabel(metric.unit)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _label(curve: Curve, mode: str, metric: Metric) -> str:
    slope = curve.slope(metric)
    power = "" if slope is None else f", frames^{slope:.2f}"
    return f"{curve.mixer}{f' {mode}' if metric is TIME else ''}{power}"


def _mark_ends(axes: Axes, curve: Curve, color: str) -> None:
    """A cross at the upper edge for every length that ran out of memory."""
    for frames in curve.lengths:
        if curve.status(frames) == "out_of_memory":
            place = axes.get_xaxis_transform()  # x in frames, y in shares of the height
            axes.plot([frames], [_TOP], marker="x", markersize=9, color=color, transform=place, clip_on=False)
            axes.annotate("out of memory", (frames, _TOP), xycoords=place, fontsize=7, color=color,
                          xytext=(-8, -3), textcoords="offset points", ha="right")  # fmt: skip
