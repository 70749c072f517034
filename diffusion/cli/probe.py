"""`zoo probe`: trains mixers on small tasks with a known best answer, and compares them."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffusion.probes import ProbeError
from diffusion.probes.tasks import get, names, summary
from temporal_zoo import registry
from temporal_zoo._support import terminal
from temporal_zoo.spec import MixerSpec

if TYPE_CHECKING:
    from rich.console import Console

    from diffusion.probes.experiment import Experiment
    from diffusion.probes.score import Score
    from diffusion.probes.task import Knob, Task


@click.command(
    short_help="Trains mixers on a small task and compares them with bounds.",
    epilog="Exit code 1: a mixer has an error below the best possible one; the mixer or the probe is wrong.",
)
@click.argument("name", required=False)
@click.option("--list", "as_list", is_flag=True, help="List the probes with their questions and difficulties.")
@click.option("--mixers", default="all", show_default=True, help="Mixers, separated by commas; options after colons.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings per mixer.")
@click.option("--difficulty", help="Difficulties, separated by commas, or all.  [default: the probe's]")
@click.option("--noise", help="Noise levels, separated by commas, or all.  [default: the probe's]")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps of each mixer.  [default: the probe's]")
@click.option("--sequences", type=click.IntRange(min=2), default=4096, show_default=True, help="Test sequences.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Output folder.  [default: runs/probe/NAME]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def probe(name, as_list, mixers, seeds, difficulty, noise, steps, sequences, out, as_json) -> None:
    """Trains mixers on a small task whose best possible error is known, and compares their errors with it.

    Takes less than a minute for each mixer and seed on one core.  Run the command again to resume.  The folder contains
    a page with figures of the task and the results (page.html, results.png), and a record of every training.
    """
    if as_list:
        return _list(as_json)
    if name is None:
        raise ProbeError(f"NAME is missing; choose from {', '.join(names())} (see zoo probe --list)")
    task = get(name)
    settings = itertools.product(_values(difficulty, task.knob), _values(noise, task.noises))
    specs = _specs(mixers)

    from diffusion.probes.experiment import Experiment
    from diffusion.probes.page import save_page
    from diffusion.probes.score import scores
    from diffusion.probes.trial import ProbeTrial
    from temporal_zoo._support.packages import need
    from temporal_zoo._support.signals import exit_code

    # Checks the optional package first, because training takes minutes.
    need("matplotlib", "drawing the figure of a probe")
    folder = out or Path("runs") / "probe" / name
    trials = [
        ProbeTrial(name, level, sigma, spec, seed, steps or task.steps, sequences)
        for (level, sigma), spec, seed in itertools.product(settings, specs, range(seeds))
    ]
    experiment, console = Experiment(trials, folder), terminal.messages()
    stopped_by = _run(experiment, console)
    if results := experiment.results():
        all_scores = scores(name, results)
        save_page(folder, task, all_scores, results)
        if as_json:
            click.echo(json.dumps([_plain(score) for score in all_scores], indent=2))
        else:
            _print(task, all_scores)
        console.print(f"Page: {folder}/page.html")
    if stopped_by:
        console.print(f"stopped after {len(results)} of {len(trials)} trainings; run the same command again to resume")
        raise click.exceptions.Exit(exit_code(stopped_by))
    if any(score.impossible for score in all_scores):
        raise click.exceptions.Exit(1)


def _list(as_json: bool) -> None:
    probes = {name: get(name) for name in names()}
    if as_json:
        facts = {
            name: {"summary": summary(name), "question": task.question, task.knob.name: task.knob.values,
                   "noise": task.noises.values}
            for name, task in probes.items()
        }  # fmt: skip
        return click.echo(json.dumps(facts, indent=2))
    table = terminal.table("probe", "question", "difficulty", "noise")
    for name, task in probes.items():
        table.add_row(name, summary(name), f"{task.knob.name}: {_choices(task.knob)}", _choices(task.noises))
    terminal.output().print(table)


def _choices(knob: Knob) -> str:
    return ", ".join(f"{value:g}" + (" (default)" if value == knob.default else "") for value in knob.values)


def _values(text: str | None, knob: Knob) -> list[float]:
    """The values of a knob in the text of an option."""
    if text is None:
        return [knob.default]
    if text == "all":
        return list(knob.values)
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        known = ", ".join(f"{value:g}" for value in knob.values)
        raise ProbeError(f"{knob.name} cannot be {text!r}; choose from {known}, separated by commas, or all") from None
    return list(dict.fromkeys(knob.checked(value) for value in values))


def _specs(mixers: str) -> list[str]:
    """Specs in their canonical text; "all" is every registered mixer with its defaults."""
    texts = registry.names() if mixers == "all" else mixers.split(",")
    return list(dict.fromkeys(str(MixerSpec.parse(text).canonical()) for text in texts))


def _run(experiment: Experiment, console: Console) -> int | None:
    """Runs the pending trials and shows their progress; returns the signal that stopped them, or None."""
    from temporal_zoo._support.signals import stoppable

    pending = experiment.pending
    if done := len(experiment.trials) - len(pending):
        console.print(f"{done} of {len(experiment.trials)} trainings are on record from this code and machine")
    with stoppable() as stop, terminal.progress_bar(console) as progress:
        task = progress.add_task("", total=sum(trial.steps for trial in pending))
        for trial, now in experiment.steps():
            progress.update(task, advance=1, description=f"{trial.mixer}, seed {trial.seed}")
            if now.result is not None and not console.is_terminal:
                error, _ = now.result["tests"][0]["errors"]["mixer"]
                console.print(f"{trial.mixer}, seed {trial.seed}: error {error:.4f}")
            if stop.signal:
                break
    return stop.signal


def _print(task: type[Task], all_scores: list[Score]) -> None:
    console = terminal.output()
    settings = list(dict.fromkeys((score.level, score.noise, score.frames) for score in all_scores))
    for level, noise, frames in settings:
        here = [s for s in all_scores if (s.level, s.noise, s.frames) == (level, noise, frames)]
        console.print(
            f"{task.question}  {task.knob.name} {level:g}, noise {noise:g}, {frames} frames: best of the past "
            f"{here[0].past:.4f}, best of all {here[0].whole:.4f}, chance 1",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        table = terminal.table(
            "mixer", "causal", "error", "minus best of past", "minus best of all", "solved", "verdict", "seeds",
            "parameters", "CPU s",
        )  # fmt: skip
        for score in here:
            table.add_row(
                score.mixer, terminal.yes_no(score.causal), str(score.error), str(score.above_past),
                str(score.above_whole), f"{score.solved:.0%}", score.verdict, str(score.seeds),
                f"{score.parameters:,}", f"{score.processor_s:.0f}", style="red" if score.impossible else None,
            )  # fmt: skip
        console.print(table)
    console.print("± is the 95 % interval over seeds, or over sequences when there is one seed.", highlight=False)


def _plain(score: Score) -> dict[str, Any]:
    return asdict(score) | {"solved": score.solved, "impossible": score.impossible, "verdict": score.verdict}
