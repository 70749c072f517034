"""The figures of an ablation: curves against steps, quality against cost, and paired differences."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from diffusion.ablations.ablation import Contrast
from diffusion.ablations.comparison import (
    CONTROL,
    CellResults,
    Difference,
    against_control,
    control_of,
    grouped,
    measures,
    ordered_axis,
)
from diffusion.ablations.result import cell_name
from diffusion.ablations.text import cost_label, measure_label
from diffusion.evaluation.uncertainty import Estimate
from temporal_zoo._support.units import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS, _LINES = "osD^v<>p", ("-", "--", ":", "-.")
_COSTS = ("stored_bytes", "step_s")
_DPI = 130
_GREEN, _RED, _GREY = "#1a7f37", "#b35900", "0.45"


@dataclass(frozen=True)
class LineStyle:
    """How the cells of one line are drawn."""

    label: str
    colour: str
    marker: str
    line: str


# Baselines look the same in every ablation, and their labels describe them.
_BASELINES = {
    "flash": LineStyle("fused attention", "black", "*", "-"),
    "attn": LineStyle("unfused attention", "0.35", "X", "-"),
    CONTROL: LineStyle("no mixing", "0.65", "_", "-"),
}


def png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    with io.BytesIO() as file:
        figure.savefig(file, dpi=_DPI, format="png")
        return file.getvalue()


def curves(all_cells: Sequence[CellResults], apart: Sequence[str] = ()) -> Figure:
    """Held-out loss against training steps and, below it, relative to the loss of the control: a line for each cell.

    apart: axes whose values are separate tasks, such as frames; each task has a column.
    """
    styles = _styles(all_cells, apart)
    tasks: dict[str, list[CellResults]] = {}
    for cell in all_cells:
        tasks.setdefault(cell_name({axis: cell.axes[axis] for axis in apart if axis in cell.axes}), []).append(cell)
    rows = 1 + any(control_of(cell, all_cells) is not None for cell in all_cells)
    figure, panels = _figure(rows, len(tasks), height=4)
    for (task, members), column in zip(tasks.items(), panels.T, strict=True):
        for cell in members:
            _draw_curve(column[0], [dict(trial.curve) for trial in cell.trials.values()], styles[cell.name])
            if control := control_of(cell, all_cells):
                _draw_curve(column[1], _relative_to(control, cell), styles[cell.name])
        column[0].set(title=task, ylabel="held-out loss", yscale="log")
        _plain_log(column[0].yaxis)
        column[-1].set(xlabel="training steps")
        for axes in column[1:]:
            axes.set(ylabel=f"held-out loss, % against {CONTROL}")
            axes.axhline(0, color=_BASELINES[CONTROL].colour)
    return _with_legend(figure, panels)


def quality(all_cells: Sequence[CellResults], along: str | None = None) -> Figure:
    """Every measure against memory and time: a point with its interval for each cell, joined along an ordered axis.

    along: an axis of numbers, such as frames; the first one when it is None.
    """
    along = along or ordered_axis(all_cells)
    prices = [name for name in _COSTS if any(cell.cost(name) for cell in all_cells)]
    styles, (first, *others) = _styles(all_cells, [along] if along else []), measures(all_cells)
    heights = {measure_label(name): {cell.name: cell.measure(name) for cell in all_cells} for name in (first, *others)}
    if gaps := {cell.name: gap for cell in all_cells if (gap := against_control(cell, all_cells, first))}:
        percents = {name: _percent(gap.relative) for name, gap in gaps.items()}
        heights = {f"{measure_label(first)}, % against {CONTROL}": percents} | heights
    figure, panels = _figure(len(heights), len(prices), height=4)
    for (label, values), row in zip(heights.items(), panels, strict=True):
        for price, axes in zip(prices, row, strict=True):
            points = [(cell, cell.cost(price), values.get(cell.name)) for cell in all_cells]
            _draw_quality(axes, [(cell, at, value) for cell, at, value in points if at and value], along, styles)
            axes.set(ylabel=label, xscale="log")
            _widen(axes, {at for _, at, value in points if at and value})
    for price, axes in zip(prices, panels[-1], strict=True):
        axes.set_xlabel(cost_label(price) + (f" (beside points: {along})" if along else ""))
        _plain_log(axes.xaxis, in_bytes=price.endswith("_bytes"))
    return _with_legend(figure, panels)


def forest(all_cells: Sequence[CellResults], contrasts: Sequence[Contrast], apart: Sequence[str] = ()) -> Figure:
    """Paired differences with their intervals: a group below the other, a column for each measure."""
    from matplotlib.figure import Figure

    names = measures(all_cells)
    columns = [grouped(all_cells, contrasts, name, apart) for name in names]
    titles = list(dict.fromkeys(title for groups in columns for title in groups))
    heights = [max(len(groups.get(title, ())) for groups in columns) + 2.2 for title in titles]
    figure = Figure(figsize=(4 + 4.5 * len(names), 0.5 + 0.3 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(titles), len(names), squeeze=False, height_ratios=heights)
    for title, row in zip(titles, panels, strict=True):
        labels = [[f"{gap.first}  −  {gap.second}" for gap in groups.get(title, ())] for groups in columns]
        for name, groups, axes, ticks in zip(names, columns, row, labels, strict=True):
            _draw_forest(axes, groups.get(title, ()), ticks)
            axes.set_title(f"{title}: {measure_label(name)}", loc="left", fontsize=10)
            if axes is not row[0] and ticks == labels[0]:
                axes.tick_params(labelleft=False)
    return figure


def _styles(all_cells: Sequence[CellResults], ignored: Sequence[str]) -> dict[str, LineStyle]:
    """Cell -> its style: a colour for each value of its first axis, a marker and a line for those of the others.

    ignored: axes whose values are visible from the position in the figure.
    """
    styles: dict[str, LineStyle] = {}
    colours: dict[str, str] = {}
    others: dict[tuple[str, ...], int] = {}
    for cell in all_cells:
        values = {axis: value for axis, value in cell.axes.items() if axis not in ignored} or cell.axes
        first, *rest = values.values()
        baseline = next((name for value in values.values() if (name := value.partition(":")[0]) in _BASELINES), None)
        index = others.setdefault(tuple(rest), len(others)) if rest else 0
        label, line = cell_name(values), _LINES[index % len(_LINES)]
        if baseline:
            style = _BASELINES[baseline]
            styles[cell.name] = replace(style, label=f"{label} ({style.label})", line=line)
        else:
            colour = colours.setdefault(first, f"C{len(colours) % 10}")
            styles[cell.name] = LineStyle(label, colour, _MARKERS[index % len(_MARKERS)], line)
    return styles


def _figure(rows: int, columns: int, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    # The legend takes 2.6 inches of the width.
    figure = Figure(figsize=(2.6 + 4.9 * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="col")


def _with_legend(figure: Figure, panels: Any) -> Figure:
    """One legend for all panels, beside them."""
    entries: dict[str, Any] = {}
    for axes in panels.ravel():
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _draw_curve(axes: Axes, seeds: Sequence[dict[int, float]], style: LineStyle) -> None:
    """The mean over seeds at their common steps, and a band from the lowest seed to the highest."""
    steps = sorted(set.intersection(*map(set, seeds))) if seeds else []
    values = [[curve[step] for curve in seeds] for step in steps]
    axes.plot(steps, list(map(fmean, values)), style.line, color=style.colour, label=style.label, linewidth=1.5)
    lowest, highest = list(map(min, values)), list(map(max, values))
    axes.fill_between(steps, lowest, highest, color=style.colour, alpha=0.15, linewidth=0)
    axes.grid(alpha=0.3)


def _relative_to(control: CellResults, cell: CellResults) -> list[dict[int, float]]:
    """For each common seed: step -> held-out loss of the cell minus that of the control, in percent of the latter."""
    both = [
        (dict(cell.trials[seed].curve), dict(control.trials[seed].curve))
        for seed in cell.trials.keys() & control.trials
    ]
    return [{step: 100 * (ours[step] / theirs[step] - 1) for step in ours if step in theirs} for ours, theirs in both]


def _draw_quality(
    axes: Axes, points: Sequence[tuple[CellResults, float, Estimate]], along: str | None, styles: dict[str, LineStyle]
) -> None:
    lines: dict[LineStyle, list[tuple[CellResults, float, Estimate]]] = {}
    for cell, at, value in points:
        lines.setdefault(styles[cell.name], []).append((cell, at, value))
    for style, line in lines.items():
        if along:
            line.sort(key=lambda point: float(point[0].axes.get(along, 0)))
        _, costs, values = zip(*line, strict=True)
        axes.errorbar(costs, [value.value for value in values], yerr=[value.margin or 0 for value in values],
                      color=style.colour, marker=style.marker, linestyle=style.line, label=style.label,
                      linewidth=1, elinewidth=1.5, capsize=3, markersize=11 if style.marker in "*X_" else 7,
                      fillstyle="none" if style.marker in _MARKERS else "full")  # fmt: skip
        for cell, at, value in line:
            axes.annotate(cell.axes.get(along or "", ""), (at, value.value), textcoords="offset points",
                          xytext=(6, 5), fontsize=7, color=style.colour)  # fmt: skip
    axes.grid(alpha=0.3)


def _widen(axes: Axes, costs: set[float]) -> None:
    """Extends an axis of costs beyond its points; a single cost is at its centre."""
    if len(costs) == 1:
        (cost,) = costs
        axes.set_xlim(cost / 2, cost * 2)
    else:
        axes.margins(x=0.08)


def _percent(fraction: Estimate | None) -> Estimate | None:
    return fraction and Estimate(100 * fraction.value, None if fraction.margin is None else 100 * fraction.margin)


def _plain_log(axis: Any, *, in_bytes: bool = False) -> None:
    """Ticks of a logarithmic axis as plain numbers: powers of two (and values between) for bytes, else 1, 2, 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    between = (1, 1.25, 1.5, 1.75) if high < 2.5 * low else (1, 1.5) if high < 8 * low else (1,)
    axis.set_major_locator(LogLocator(base=2, subs=between) if in_bytes else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: size(value) if in_bytes else f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _draw_forest(axes: Axes, gaps: Sequence[Difference], labels: Sequence[str]) -> None:
    relative = all(gap.relative for gap in gaps)
    for index, gap in enumerate(gaps):
        shown = gap.shown if relative else gap.absolute
        scale = 100 if relative else 1
        colour = _GREEN if gap.lower else _RED if gap.higher else _GREY
        margin = None if shown.margin is None else scale * shown.margin
        axes.errorbar(scale * shown.value, index, xerr=margin, color=colour, marker="s", markersize=5, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(gaps)), labels, fontsize=9)
    axes.set_ylim(len(gaps) - 0.4, -0.6)
    unit = "difference in % of the second" if relative else "difference"
    axes.set_xlabel(f"{unit}; left of 0: the first is better", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
