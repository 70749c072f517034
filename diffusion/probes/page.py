"""The page of a probe: a figure with the task, the results as curves with the best possible errors, and a table."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion.probes.score import Score
from diffusion.probes.task import Task
from diffusion.probes.trial import ProbeTrial
from temporal_zoo._support import html
from temporal_zoo._support.files import write_text, written_whole
from temporal_zoo._support.html import element

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = Sequence[tuple[ProbeTrial, dict[str, Any]]]

_PAST, _WHOLE = "best of the past", "best of all"
_UNITS = (
    "Errors are squared errors, divided by the error of the best guess without any input: 1 is chance. ± is the 95 % "
    "interval over seeds, or over sequences when there is one seed. Differences are taken on the same sequences."
)


def save_page(folder: Path, task: type[Task], scores: Sequence[Score], results: Results) -> None:
    """Writes results.png, and page.html with the same figure and the table."""
    picture = _picture(task, scores, results)
    with written_whole(folder / "results.png") as file:
        file.write(picture)
    write_text(folder / "page.html", _page(task, scores, results[0][0], picture))


def _page(task: type[Task], scores: Sequence[Score], trial: ProbeTrial, picture: bytes) -> str:
    columns = (
        "mixer", task.knob.name, "noise", "frames", "error", "best of the past", "above it", "best of all", "above it",
        "solved", "verdict", "seeds", "parameters", "CPU s",
    )  # fmt: skip
    cells = [
        (
            score.mixer, f"{score.level:g}", f"{score.noise:g}", str(score.frames), str(score.error),
            f"{score.past:.4f}", str(score.above_past), f"{score.whole:.4f}", str(score.above_whole),
            f"{score.solved:.0%}", score.verdict, str(score.seeds), f"{score.parameters:,}",
            f"{score.processor_s:.0f}",
        )
        for score in scores
    ]  # fmt: skip
    return html.page(
        f"zoo probe {trial.probe}",
        element("h1", f"{trial.probe}: {task.question}"),
        element("p", " ".join((task.__doc__ or "").split())),
        element("p", f"{trial.steps} training steps each, {trial.sequences:,} test sequences. {_UNITS}"),
        html.figure(html.picture(picture, "the task and the results")),
        html.table(columns, cells, kinds=["failed" if score.impossible else "" for score in scores]),
    )


def _picture(task: type[Task], scores: Sequence[Score], results: Results) -> bytes:
    from matplotlib.figure import Figure

    trial = results[0][0]
    # The answers of all mixers on one sequence, of the first seed and setting.
    shown = {t.mixer: r for t, r in results if (t.level, t.noise, t.seed) == (trial.level, trial.noise, trial.seed)}
    colours = {mixer: f"C{number % 10}" for number, mixer in enumerate(dict.fromkeys(score.mixer for score in scores))}
    swept = [axis for axis in ("level", "noise", "frames") if len({getattr(score, axis) for score in scores}) > 1]
    num_rows = 1 + math.ceil(len(swept) / 2)
    figure = Figure(figsize=(13, 4.5 + 4.5 * num_rows), layout="constrained")
    task_part, result_part = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, num_rows))[:, 0]
    task_part.suptitle(f"one sequence: {task.question}")
    _draw_task(task_part, trial, shown, colours)
    panels = result_part.subplots(num_rows, 2, squeeze=False).ravel()
    _draw_frames(panels[0], trial, shown, colours)
    _draw_training(panels[1], trial, scores, shown, colours)
    for axes, axis in zip(panels[2:], swept, strict=False):
        _draw_sweep(axes, axis, task, scores, colours)
    for axes in panels[2 + len(swept) :]:
        axes.set_axis_off()
    with io.BytesIO() as file:
        figure.savefig(file, dpi=110, format="png")
        return file.getvalue()


def _draw_task(part: Any, trial: ProbeTrial, shown: dict[str, Any], colours: dict[str, str]) -> None:
    """One sequence: inputs, targets, the best answers, and the answers of every mixer."""
    task = trial.task()
    sequences = task.draw(trial.seed, "probe/test", 0, 1, task.frames)
    best = task.answers(sequences)
    due = sequences.due[0].numpy()
    answers = {
        "target": sequences.targets[0].numpy(), _PAST: best.past[0].numpy(), _WHOLE: best.whole[0].numpy(),
        **{mixer: np.array(result["example"]) for mixer, result in shown.items()},
    }  # fmt: skip
    masked = {name: np.where(due[:, None], values, np.nan) for name, values in answers.items()}
    if sequences.targets.shape[-1] > 1:
        for axes, (name, values) in zip(
            part.subplots(1, 1 + len(masked), sharey=True),
            {"input": sequences.inputs[0].numpy(), **masked}.items(), strict=True,
        ):  # fmt: skip
            axes.imshow(values.T, aspect="auto", cmap="viridis", vmin=-0.5, vmax=1.5)
            axes.set_title(name, fontsize=8)
            axes.set_xlabel("frame")
        return
    inputs, lines = part.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    inputs.imshow(sequences.inputs[0].T.numpy(), aspect="auto", cmap="coolwarm", vmin=-2, vmax=2)
    inputs.set_title("input", loc="left", fontsize=9)
    inputs.set(yticks=range(len(task.channels)), yticklabels=task.channels)
    lines.plot(masked["target"][:, 0], "k.-", label="target")
    lines.plot(masked[_PAST][:, 0], "k--", label=_PAST)
    lines.plot(masked[_WHOLE][:, 0], "k:", label=_WHOLE)
    for mixer in shown:
        lines.plot(masked[mixer][:, 0], color=colours[mixer], alpha=0.7, label=mixer)
    lines.set(xlabel="frame", ylabel="value")
    lines.legend(frameon=False, fontsize=8, ncols=4)


def _draw_frames(axes: Axes, trial: ProbeTrial, shown: dict[str, Any], colours: dict[str, str]) -> None:
    """Error at each frame and the best possible errors there, on the same sequences."""
    for mixer, result in shown.items():
        by_frame = result["tests"][0]["by_frame"]
        at = np.flatnonzero(by_frame["due"])
        if mixer == trial.mixer:
            axes.plot(at, np.array(by_frame["past"])[at], "k--", label=_PAST)
            axes.plot(at, np.array(by_frame["whole"])[at], "k:", label=_WHOLE)
        axes.plot(at, np.array(by_frame["mixer"])[at], color=colours[mixer], marker=".", label=mixer)
    axes.set(xlabel="frame", ylabel="error", title=f"error by frame, seed {trial.seed}", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


def _draw_training(
    axes: Axes, trial: ProbeTrial, scores: Sequence[Score], shown: dict[str, Any], colours: dict[str, str]
) -> None:
    """Error against training steps."""
    for mixer, result in shown.items():
        axes.plot(*zip(*result["curve"], strict=True), color=colours[mixer], marker=".", label=mixer)
    axes.axhline(scores[0].past, color="k", linestyle="--", label=_PAST)
    axes.axhline(scores[0].whole, color="k", linestyle=":", label=_WHOLE)
    axes.set(xlabel="training steps", ylabel="error", title=f"learning, seed {trial.seed}", ylim=(0, 1.1))
    axes.grid(alpha=0.3)


def _draw_sweep(axes: Axes, axis: str, task: type[Task], scores: Sequence[Score], colours: dict[str, str]) -> None:
    """Error against difficulty, noise or length; other settings are the defaults, or those of the first score."""
    default = (task.knob.default, task.noises.default)
    first = next((score for score in scores if (score.level, score.noise) == default), scores[0])
    others = [name for name in ("level", "noise", "frames") if name != axis]
    here = [score for score in scores if all(getattr(score, name) == getattr(first, name) for name in others)]
    for mixer, colour in colours.items():
        line = sorted((score for score in here if score.mixer == mixer), key=lambda score: getattr(score, axis))
        at = [getattr(score, axis) for score in line]
        margins = [score.error.margin or 0 for score in line]
        values = [score.error.value for score in line]
        axes.errorbar(at, values, yerr=margins, color=colour, marker=".", capsize=3, label=mixer)
    line = sorted((score for score in here if score.mixer == here[0].mixer), key=lambda score: getattr(score, axis))
    at = [getattr(score, axis) for score in line]
    axes.plot(at, [score.past for score in line], "k--", label=_PAST)
    axes.plot(at, [score.whole for score in line], "k:", label=_WHOLE)
    labels = {"level": task.knob.name, "noise": "noise", "frames": "frames"}
    fixed = ", ".join(f"{labels[name]} {getattr(first, name):g}" for name in others)
    axes.set(xlabel=labels[axis], ylabel="error", title=f"error against {labels[axis]} ({fixed})", ylim=(0, None))
    if axis == "frames":
        axes.set_xscale("log", base=2)
    axes.grid(alpha=0.3)
