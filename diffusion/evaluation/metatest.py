"""Tests the measures: computes each on real clips that were damaged in known ways, with equal numbers of clips.

One half of the real clips is the reference, the other half is damaged.  The first row is the undamaged half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.evaluation.clips import ClipSet
from diffusion.evaluation.distortions import DISTORTIONS, Distorted
from diffusion.evaluation.extractors import Extractor
from diffusion.evaluation.features import Progress
from diffusion.evaluation.protocol import EvaluationProtocol
from diffusion.evaluation.suite import Evaluation, Measurement
from temporal_zoo._support.files import written_whole
from temporal_zoo._support.packages import need

CLEAN = "none: real against real"
PICTURE = "metatest.png"  # in the folder of the page


class MetaTest:
    """All measures on all distortions of some real clips.

    Args:
        real: the reference.
        others: other real clips, equally many; these are damaged.
        extractor, protocol, seed: as for an `Evaluation`.
    """

    def __init__(
        self, real: ClipSet, others: ClipSet, *, extractor: Extractor, protocol: EvaluationProtocol, seed: int
    ) -> None:
        how: dict[str, Any] = {"extractor": extractor, "protocol": protocol, "seed": seed}
        self.clean = Evaluation(real, others, others, **how)
        self._damaged = {
            name: Evaluation(real, Distorted(others, name, seed=seed), None, **how) for name in DISTORTIONS
        }

    def work(self) -> Iterator[Progress]:
        """Computes everything; yields the progress."""
        for evaluation in (self.clean, *self._damaged.values()):
            yield from evaluation.work()

    @property
    def rows(self) -> dict[str, dict[str, Measurement]]:
        """Distortion -> measure -> measurement; undamaged clips first."""
        evaluations = {CLEAN: self.clean} | self._damaged
        return {name: {row.measure: row for row in evaluation.rows} for name, evaluation in evaluations.items()}


def detected(row: Measurement, clean: Measurement) -> bool:
    """Whether a measure detects the damage: its value is above those of 95 % of random splits of real clips."""
    return row.estimate.value > _bound(clean)


def page(test: MetaTest, command: str, heading: str, remarks: Iterable[str]) -> str:
    """The result as a page in Markdown: a table of values, with detected damage in bold."""
    rows = test.rows
    measures = list(rows[CLEAN])
    lines = [
        "# Which damage the measures detect",
        "",
        heading + ".",
        "",
        *(f"* {remark}." for remark in remarks),
        "",
        "Half of the clips are damaged in known ways and compared with the other half. A number in **bold** is above",
        "the values of 95 % of the splits of real clips: the measure detects the damage at this number of clips. The",
        "number in brackets is the value divided by that bound.",
        "",
        "| damage | " + " | ".join(measures) + " |",
        "| --- |" + " --- |" * len(measures),
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(row[m], rows[CLEAN][m], name == CLEAN) for m in measures) + " |")
    lines += ["", f"![value divided by the bound of real clips]({PICTURE})", ""]
    lines += [*(f"* {name}: {_description(name)}" for name in DISTORTIONS), "", "Command:", "", f"    {command}", ""]
    return "\n".join(lines)


def save_plot(path: Path, rows: Mapping[str, Mapping[str, Measurement]]) -> None:
    """Draws the table; colour is the value divided by the bound of real clips, on a logarithmic scale."""
    need("matplotlib", "drawing the meta-test")
    from matplotlib.figure import Figure

    measures = list(rows[CLEAN])
    names = [name for name in rows if name != CLEAN]
    units = np.array([[_units(rows[name][m], rows[CLEAN][m]) for m in measures] for name in names])
    figure = Figure(figsize=(2.5 + 0.75 * len(measures), 2.2 + 0.4 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(np.log2(units.clip(0.25, 16)), cmap="coolwarm", vmin=-4, vmax=4, aspect="auto")
    for (y, x), value in np.ndenumerate(units):
        axes.text(x, y, f"{value:.2g}", ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(measures)), measures, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("value divided by the bound of real clips; above 1, the damage is detected", fontsize=10)
    figure.colorbar(shown, label="log2")
    with written_whole(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _bound(clean: Measurement) -> float:
    """The upper end of the values between real clips; for a measure without a floor, its value plus its margin.

    The distance between real clips should be zero.  An extrapolation may miss zero, which is not an effect of damage.
    """
    if clean.bound is not None:
        return clean.bound
    return max(0.0, clean.estimate.value) + (clean.estimate.margin or 0)


def _units(row: Measurement, clean: Measurement) -> float:
    bound = _bound(clean)
    return row.estimate.value / bound if bound > 0 else float("nan")


def _cell(row: Measurement, clean: Measurement, is_clean: bool) -> str:
    value = f"{row.estimate.value:.3g}"
    if is_clean:
        return f"{value} (up to {_bound(clean):.3g})"
    return f"**{value}** ({_units(row, clean):.2g})" if detected(row, clean) else f"{value} ({_units(row, clean):.2g})"


def _description(name: str) -> str:
    text = (DISTORTIONS[name].__doc__ or "").partition("\n")[0]
    return text[0].lower() + text[1:]
