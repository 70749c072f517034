"""The picture of loss curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffusion.training.history import history
from temporal_zoo._support.files import written_whole
from temporal_zoo._support.packages import need


def save_curves(path: Path, runs: Mapping[str, Path]) -> None:
    """Plots held-out loss and smoothed training loss against clips seen, for named run folders."""
    need("matplotlib", "drawing loss curves")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, folder) in enumerate(runs.items()):
        steps, colour = history(folder), f"C{number}"
        clips = np.array([s["clips_seen"] for s in steps])
        axes.plot(
            clips, _smoothed(np.array([s["loss"] for s in steps])), color=colour, alpha=0.3, label=f"{name}, training"
        )
        tested = [(s["clips_seen"], s["test_loss"]) for s in steps if s["test_loss"] is not None]
        if tested:
            axes.plot(*zip(*tested, strict=True), color=colour, marker="o", markersize=3, label=f"{name}, held out")
    axes.set(xlabel="clips seen", ylabel="loss", xscale="linear", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    with written_whole(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _smoothed(losses: np.ndarray) -> np.ndarray:
    """Mean over the last 5 % of the steps so far, at least one step."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(losses) + 1)
    starts = ends - np.maximum(1, len(losses) // 20)
    starts = np.maximum(starts, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
