"""The pictures of an ablation: curves against steps, quality against cost, and paired differences."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from diffusion.ablations.comparison import (
    FLOOR,
    CellResults,
    Contrast,
    Difference,
    against_floor,
    floor_of,
    grouped,
    measures,
    ordered_axis,
)
from diffusion.ablations.result import cell_name
from diffusion.ablations.words import bytes_text, cost_words, measure_words
from diffusion.evaluation.uncertainty import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS, _LINES = "osD^v<>p", ("-", "--", ":", "-.")
_COSTS = ("stored_bytes", "step_s")
_DPI = 130
_GREEN, _RED, _GREY = "#1a7f37", "#b35900", "0.45"


@dataclass(frozen=True)
class Look:
    """How the cells of one line are drawn."""

    label: str
    colour: str
    marker: str
    line: str


# Baselines look the same in every ablation, and what they are is said.
_BASELINES = {
    "flash": Look("fused attention", "black", "*", "-"),
    "attn": Look("unfused attention", "0.35", "X", "-"),
    FLOOR: Look("no mixing", "0.65", "_", "-"),
}


def png(figure: Figure) -> bytes:
    """The picture as a PNG file."""
    with io.BytesIO() as file:
        figure.savefig(file, dpi=_DPI, format="png")
        return file.getvalue()


def curves(found: Sequence[CellResults], apart: Sequence[str] = ()) -> Figure:
    """Held-out loss against training steps, and below it, relative to the control's: a line for each cell.

    apart: axes, such as frames, whose values are tasks of their own, and have a column each.
    """
    looks = _looks(found, apart)
    tasks: dict[str, list[CellResults]] = {}
    for cell in found:
        tasks.setdefault(cell_name({axis: cell.axes[axis] for axis in apart if axis in cell.axes}), []).append(cell)
    rows = 1 + any(floor_of(cell, found) is not None for cell in found)
    figure, panels = _figure(rows, len(tasks), height=4)
    for (task, here), column in zip(tasks.items(), panels.T, strict=True):
        for cell in here:
            _draw_curve(column[0], [dict(trial.curve) for trial in cell.trials.values()], looks[cell.name])
            if floor := floor_of(cell, found):
                _draw_curve(column[1], _less_floor(cell, floor), looks[cell.name])
        column[0].set(title=task, ylabel="held-out loss", yscale="log")
        _plain_log(column[0].yaxis)
        column[-1].set(xlabel="training steps")
        for axes in column[1:]:
            axes.set(ylabel=f"held-out loss, % against {FLOOR}")
            axes.axhline(0, color=_BASELINES[FLOOR].colour)
    return _with_legend(figure, panels)


def quality(found: Sequence[CellResults], along: str | None = None) -> Figure:
    """Every measure against memory and time: a point for each cell with its interval, joined along an ordered axis.

    along: such as frames; the first axis of numbers when it is None.
    """
    along = along or ordered_axis(found)
    prices = [name for name in _COSTS if any(cell.cost(name) for cell in found)]
    looks, (first, *others) = _looks(found, [along] if along else []), measures(found)
    heights = {measure_words(name): {cell.name: cell.measure(name) for cell in found} for name in (first, *others)}
    if gaps := {cell.name: gap for cell in found if (gap := against_floor(cell, found, first))}:
        percents = {name: _percent(gap.relative) for name, gap in gaps.items()}
        heights = {f"{measure_words(first)}, % against {FLOOR}": percents} | heights
    figure, panels = _figure(len(heights), len(prices), height=4)
    for (label, values), row in zip(heights.items(), panels, strict=True):
        for price, axes in zip(prices, row, strict=True):
            points = [(cell, cell.cost(price), values.get(cell.name)) for cell in found]
            _draw_quality(axes, [(cell, at, value) for cell, at, value in points if at and value], along, looks)
            axes.set(ylabel=label, xscale="log")
            _widen(axes, {at for _, at, value in points if at and value})
    for price, axes in zip(prices, panels[-1], strict=True):
        axes.set_xlabel(cost_words(price) + (f" (beside points: {along})" if along else ""))
        _plain_log(axes.xaxis, in_bytes=price.endswith("_bytes"))
    return _with_legend(figure, panels)


def forest(found: Sequence[CellResults], contrasts: Sequence[Contrast], apart: Sequence[str] = ()) -> Figure:
    """Paired differences with their intervals, in groups below each other, a column for each measure."""
    from matplotlib.figure import Figure

    names = measures(found)
    columns = [grouped(found, contrasts, name, apart) for name in names]
    titles = list(dict.fromkeys(title for groups in columns for title in groups))
    heights = [max(len(groups.get(title, ())) for groups in columns) + 2.2 for title in titles]
    figure = Figure(figsize=(4 + 4.5 * len(names), 0.5 + 0.3 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(titles), len(names), squeeze=False, height_ratios=heights)
    for title, row in zip(titles, panels, strict=True):
        labels = [[f"{gap.first}  −  {gap.second}" for gap in groups.get(title, ())] for groups in columns]
        for name, groups, axes, here in zip(names, columns, row, labels, strict=True):
            _draw_forest(axes, groups.get(title, ()), here)
            axes.set_title(f"{title}: {measure_words(name)}", loc="left", fontsize=10)
            if axes is not row[0] and here == labels[0]:
                axes.tick_params(labelleft=False)
    return figure


def _looks(found: Sequence[CellResults], ignored: Sequence[str]) -> dict[str, Look]:
    """Cell -> its look: a colour for each value of its first axis, marker and line for those of the others.

    ignored: axes whose values the place in the picture shows.
    """
    looks: dict[str, Look] = {}
    colours: dict[str, str] = {}
    others: dict[tuple[str, ...], int] = {}
    for cell in found:
        kept = {axis: value for axis, value in cell.axes.items() if axis not in ignored} or cell.axes
        first, *rest = kept.values()
        baseline = next((name for value in kept.values() if (name := value.partition(":")[0]) in _BASELINES), None)
        place = others.setdefault(tuple(rest), len(others)) if rest else 0
        label, line = cell_name(kept), _LINES[place % len(_LINES)]
        if baseline:
            look = _BASELINES[baseline]
            looks[cell.name] = replace(look, label=f"{label} ({look.label})", line=line)
        else:
            colour = colours.setdefault(first, f"C{len(colours) % 10}")
            looks[cell.name] = Look(label, colour, _MARKERS[place % len(_MARKERS)], line)
    return looks


def _figure(rows: int, columns: int, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    # The last 2.6 inches are the legend's.
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


def _draw_curve(axes: Axes, seeds: Sequence[dict[int, float]], look: Look) -> None:
    """The mean over seeds, at the steps that all of them have, and a band from the lowest to the highest."""
    steps = sorted(set.intersection(*map(set, seeds))) if seeds else []
    values = [[curve[step] for curve in seeds] for step in steps]
    lowest, highest = [min(here) for here in values], [max(here) for here in values]
    axes.plot(steps, [fmean(here) for here in values], look.line, color=look.colour, label=look.label, linewidth=1.5)
    axes.fill_between(steps, lowest, highest, color=look.colour, alpha=0.15, linewidth=0)
    axes.grid(alpha=0.3)


def _less_floor(cell: CellResults, floor: CellResults) -> list[dict[int, float]]:
    """For each seed that both have: step -> the cell's held-out loss less the floor's, in percent of the floor's."""
    both = [
        (dict(cell.trials[seed].curve), dict(floor.trials[seed].curve)) for seed in cell.trials.keys() & floor.trials
    ]
    return [{step: 100 * (ours[step] / theirs[step] - 1) for step in ours if step in theirs} for ours, theirs in both]


def _draw_quality(
    axes: Axes, points: Sequence[tuple[CellResults, float, Estimate]], along: str | None, looks: dict[str, Look]
) -> None:
    lines: dict[Look, list[tuple[CellResults, float, Estimate]]] = {}
    for cell, at, value in points:
        lines.setdefault(looks[cell.name], []).append((cell, at, value))
    for look, line in lines.items():
        if along:
            line.sort(key=lambda point: float(point[0].axes.get(along, 0)))
        _, costs, values = zip(*line, strict=True)
        axes.errorbar(costs, [value.value for value in values], yerr=[value.margin or 0 for value in values],
                      color=look.colour, marker=look.marker, linestyle=look.line, label=look.label,
                      linewidth=1, elinewidth=1.5, capsize=3, markersize=11 if look.marker in "*X_" else 7,
                      fillstyle="none" if look.marker in _MARKERS else "full")  # fmt: skip
        for cell, at, value in line:
            axes.annotate(cell.axes.get(along or "", ""), (at, value.value), textcoords="offset points",
                          xytext=(6, 5), fontsize=7, color=look.colour)  # fmt: skip
    axes.grid(alpha=0.3)


def _widen(axes: Axes, costs: set[float]) -> None:
    """Lets an axis of costs reach beyond its points; a single cost is its middle."""
    if len(costs) == 1:
        (cost,) = costs
        axes.set_xlim(cost / 2, cost * 2)
    else:
        axes.margins(x=0.08)


def _percent(part: Estimate | None) -> Estimate | None:
    return part and Estimate(100 * part.value, None if part.margin is None else 100 * part.margin)


def _plain_log(axis: Any, *, in_bytes: bool = False) -> None:
    """Ticks of a logarithmic axis as plain numbers: powers of two for bytes, and between if few; else 1, 2, 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    between = (1, 1.25, 1.5, 1.75) if high < 2.5 * low else (1, 1.5) if high < 8 * low else (1,)
    axis.set_major_locator(LogLocator(base=2, subs=between) if in_bytes else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value) if in_bytes else f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _draw_forest(axes: Axes, gaps: Sequence[Difference], labels: Sequence[str]) -> None:
    relative = all(gap.relative for gap in gaps)
    for place, gap in enumerate(gaps):
        shown = gap.shown if relative else gap.absolute
        scale = 100 if relative else 1
        colour = _GREEN if gap.lower else _RED if gap.higher else _GREY
        margin = None if shown.margin is None else scale * shown.margin
        axes.errorbar(scale * shown.value, place, xerr=margin, color=colour, marker="s", markersize=5, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(gaps)), labels, fontsize=9)
    axes.set_ylim(len(gaps) - 0.4, -0.6)
    unit = "difference in % of the second" if relative else "difference"
    axes.set_xlabel(f"{unit}; left of 0: the first is better", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
