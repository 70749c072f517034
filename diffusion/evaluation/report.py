"""An evaluation as a table, a picture and a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion.evaluation import EvaluationError
from diffusion.evaluation.protocol import PUBLISHED
from diffusion.evaluation.uncertainty import Estimate
from temporal_zoo._support import terminal
from temporal_zoo._support.files import written_whole
from temporal_zoo._support.packages import need

if TYPE_CHECKING:
    from rich.table import Table

    from diffusion.evaluation.suite import Evaluation


def title(evaluation: Evaluation) -> str:
    """One line: the two sides, their numbers of clips, protocol and network."""
    real, fake, protocol = evaluation.real, evaluation.fake, evaluation.protocol
    network = ", ".join(
        f"{name} {value[:8] if name == 'sha256' else value}" for name, value in evaluation.extractor.identity.items()
    )
    return (
        f"{fake.name}: {fake.count} clips of {_videos(fake.num_videos)}, against {real.name}: {real.count} clips of "
        f"{_videos(real.num_videos)}; {real.frames} frames of {real.size} x {real.size}; protocol {protocol.name} "
        f"{protocol.digest[:8]}, reference {protocol.reference}; {network}"
    )


def remarks(evaluation: Evaluation) -> list[str]:
    """Lines below the title: what the protocol is comparable with, how clips were cut from files, and warnings."""
    frames, size = evaluation.real.frames, evaluation.real.size
    sides = (("real", evaluation.real), ("generated", evaluation.fake))
    lines = [f"{side} clips: {clips.origin.sentence(frames, size)}" for side, clips in sides]
    name = evaluation.protocol.name
    if evaluation.extractor.measures[0] == "FVD" and name in PUBLISHED:
        lines.insert(0, f"protocol {name}: {PUBLISHED[name]}")
    return [*lines, *(f"warning: {text}" for text in evaluation.warnings)]


def table(evaluation: Evaluation) -> Table:
    """A row for each measure: value with 95 % interval, floor, its two terms, p-value."""
    shown = terminal.table("measure", "value", "real against real", "of means", "of covariances", "p")
    for row in evaluation.rows:
        numbers = (row.mean_term, row.covariance_term, row.p_value)
        parts = ["" if number is None else f"{number:.3g}" for number in numbers]
        shown.add_row(row.measure, str(row.estimate), "" if row.floor is None else str(row.floor), *parts)
    return shown


def comparison(records: Sequence[Mapping[str, Any]]) -> Table:
    """Compares several records of `zoo evaluate`: a row for each record, a column for each measure.

    Raises:
        EvaluationError: their values cannot be compared.
    """
    require_comparable(records)
    measures = list(dict.fromkeys(row["measure"] for record in records for row in record["rows"]))
    shown = terminal.table("clips", *measures)
    for record in records:
        values = {row["measure"]: str(Estimate(*row["estimate"])) for row in record["rows"]}
        shown.add_row(record["sets"]["fake"]["name"], *(values.get(measure, "not shown") for measure in measures))
    return shown


def require_comparable(records: Sequence[Mapping[str, Any]]) -> None:
    """Checks that protocol, network, frames, size, numbers of clips and real clips are equal in all records.

    Raises:
        EvaluationError: they are not.
    """
    first = _conditions(records[0])
    for record in records[1:]:
        other = _conditions(record)
        if differing := [f"{name} ({first[name]} and {other[name]})" for name in first if first[name] != other[name]]:
            raise EvaluationError(
                f"{records[0]['sets']['fake']['name']} and {record['sets']['fake']['name']} were evaluated with "
                f"different {', '.join(differing)}; their values cannot be compared"
            )


def _conditions(record: Mapping[str, Any]) -> dict[str, Any]:
    sets = record["sets"]
    return {
        "protocol": f"{record['protocol']['name']} {record['protocol_digest']}",
        "extractor": record["extractor"],
        "frames": record["frames"],
        "size": record["size"],
        "clips": [sets["real"]["count"], sets["fake"]["count"]],
        "real clips": sets["real"]["pixels"],
        # Records without the field have method 1.
        "method of intervals": record.get("interval_method", 1),
    }


def save_plot(path: Path, evaluation: Evaluation) -> None:
    """Draws every measure divided by the upper end of its floor; without a floor, draws the value."""
    need("matplotlib", "drawing an evaluation")
    from matplotlib.figure import Figure

    bounded = [(row, row.bound) for row in evaluation.rows if row.bound is not None and row.bound > 0]
    rows = (bounded or [(row, 1.0) for row in evaluation.rows])[::-1]
    figure = Figure(figsize=(7, 1.5 + 0.35 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for height, (row, unit) in enumerate(rows):
        margin = (row.estimate.margin or 0) / unit
        axes.errorbar(row.estimate.value / unit, height, xerr=margin, fmt="o", color="C0", capsize=3)
        if row.floor and bounded:
            low = (row.floor.value - (row.floor.margin or 0)) / unit
            axes.plot([low, 1], [height - 0.25, height - 0.25], color="0.6", linewidth=3, solid_capstyle="butt")
    axes.set_yticks(range(len(rows)), [row.measure for row, _ in rows])
    axes.set_xlabel("value; 1 is the upper end of real against real (grey)" if bounded else "value")
    axes.grid(alpha=0.3, axis="x")
    with written_whole(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _videos(count: int) -> str:
    return f"{count} video{'s' * (count != 1)}"
