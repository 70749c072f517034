"""The plot of plans: peak of a training step against frames, and the memory of the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from temporal_zoo._support.files import written_whole

from .devices import GIB, Device
from .tables import PlanCurve

_LINES = {"none": "-", "mixers": "--", "blocks": ":"}


def save(curves: Sequence[PlanCurve], device: Device, path: Path) -> None:
    """Draws one line for each mixer and kind of checkpointing; a ring marks where it crosses the device's memory."""
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axes = figure.subplots()
    mixers = list(dict.fromkeys(curve.setup.mixer for curve in curves))
    for curve in curves:
        color = f"C{mixers.index(curve.setup.mixer) % 10}"
        points = {plan.setup.frames: plan.bytes.peak / GIB for plan in curve.plans}
        if min(points) <= curve.longest <= max(points):
            points = dict(sorted({**points, curve.longest: device.usable_bytes / GIB}.items()))
        line = _LINES[curve.setup.checkpointing]
        label = f"{curve.name}: up to {curve.longest:,} frames"
        axes.plot(list(points), list(points.values()), line, color=color, marker=".", markersize=4, label=label)
        if min(points) <= curve.longest <= max(points):
            axes.plot([curve.longest], [device.usable_bytes / GIB], "o", color=color, fillstyle="none", markersize=9)
    axes.axhline(device.usable_bytes / GIB, color="black", linewidth=1)
    axes.annotate(device.name, (0.005, device.usable_bytes / GIB), xycoords=("axes fraction", "data"), fontsize=8,
                  xytext=(2, 3), textcoords="offset points")  # fmt: skip
    axes.set_xscale("log", base=2)
    lengths = [plan.setup.frames for plan in curves[0].plans]
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("frames")
    axes.set_ylabel("GiB at the peak of a training step, planned")
    setup = curves[0].setup
    axes.set_title(f"{setup.preset}, {setup.clips} x {setup.size}x{setup.size}, {setup.dtype}", loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with written_whole(path) as file:
        figure.savefig(file, dpi=120, format="png")
