"""`zoo probe`: small tasks with a known best answer, for any mixer."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffusion.probes import ProbeError
from diffusion.probes.tasks import get, names, summary
from temporal_zoo import registry
from temporal_zoo._support import terminal
from temporal_zoo.spec import MixerSpec

if TYPE_CHECKING:
    from diffusion.probes.sweep import Sweep
    from diffusion.probes.task import Knob, Task
    from diffusion.probes.verdict import Row

INTERRUPTED = 130  # exit code after Ctrl-C, by convention 128 + SIGINT


@click.command(
    short_help="Trains mixers on a small task and compares them with bounds.",
    epilog="Exit code 1: a mixer has an error below the best possible one; the mixer or the probe is wrong.",
)
@click.argument("name", required=False)
@click.option("--list", "as_list", is_flag=True, help="List the probes and what makes each of them harder.")
@click.option("--mixers", default="all", show_default=True, help="Mixers, separated by commas; options after colons.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings of each mixer.")
@click.option("--difficulty", help="Values of the probe's knob, separated by commas, or all.  [default: the usual one]")
@click.option("--noise", help="Levels of noise, separated by commas, or all.  [default: the usual one]")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps of each mixer.  [default: the probe's]")
@click.option("--sequences", type=click.IntRange(min=2), default=4096, show_default=True, help="Test sequences.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write.  [default: runs/probe/NAME]"
)
@click.option("--json", "as_json", is_flag=True, help="Results as JSON instead of a table.")
def probe(name, as_list, mixers, seeds, difficulty, noise, steps, sequences, out, as_json) -> None:
    """Trains mixers on a small task whose best possible answer is known, and compares.

    Takes less than a minute for each mixer and seed on one core; typed again, goes on where it stopped.  The folder
    holds a page with the task in pictures and the results as curves (page.html, results.png), and a record of every
    trial.  The exit code is 1 when a mixer was better than is possible: then the mixer or the probe is wrong.
    """
    if as_list:
        return _list(as_json)
    if name is None:
        raise ProbeError(f"which probe?  There are {', '.join(names())}; see: zoo probe --list")
    task = get(name)
    settings = itertools.product(_values(difficulty, task.knob), _values(noise, task.noises))
    specs = _specs(mixers)

    from diffusion.probes.page import save_page
    from diffusion.probes.sweep import Sweep
    from diffusion.probes.trial import Trial
    from diffusion.probes.verdict import rows
    from temporal_zoo._support.packages import need

    # What would stop the drawing is found before the minutes of training.
    need("matplotlib", "drawing what a probe found")
    folder = out or Path("runs") / "probe" / name
    trials = [
        Trial(name, level, sigma, spec, seed, steps or task.steps, sequences)
        for (level, sigma), spec, seed in itertools.product(settings, specs, range(seeds))
    ]
    sweep = Sweep(trials, folder)
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    interrupted = _run(sweep, console)
    results = sweep.results()
    if not results:
        raise click.exceptions.Exit(INTERRUPTED)
    found = rows(name, results)
    save_page(folder, task, found, results)
    if as_json:
        click.echo(json.dumps([_plain(row) for row in found], indent=2))
    else:
        _print(task, found)
    console.print(f"Look at {folder}/page.html")
    if interrupted:
        console.print(f"stopped after {len(results)} of {len(trials)} trainings; the same command continues")
        raise click.exceptions.Exit(INTERRUPTED)
    if any(row.impossible for row in found):
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
    table = terminal.table("probe", "what it asks", "difficulty", "noise")
    for name, task in probes.items():
        table.add_row(name, summary(name), f"{task.knob.name}: {_choices(task.knob)}", _choices(task.noises))
    terminal.output().print(table)


def _choices(knob: Knob) -> str:
    return ", ".join(f"{value:g}" + (" (usual)" if value == knob.usual else "") for value in knob.values)


def _values(text: str | None, knob: Knob) -> list[float]:
    """The values of a knob that an option names."""
    if text is None:
        return [knob.usual]
    if text == "all":
        return list(knob.values)
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        known = ", ".join(f"{value:g}" for value in knob.values)
        raise ProbeError(f"{knob.name} cannot be {text!r}; it takes {known}, several with commas, or all") from None
    return list(dict.fromkeys(knob.checked(value) for value in values))


def _specs(mixers: str) -> list[str]:
    """Specs in their canonical text; "all" is every mixer there is, as it comes."""
    texts = registry.names() if mixers == "all" else mixers.split(",")
    return list(dict.fromkeys(str(MixerSpec.parse(text).canonical()) for text in texts))


def _run(sweep: Sweep, console: Console) -> bool:
    """Runs what is pending and shows how far it is; whether it was interrupted."""
    pending = sweep.pending
    if done := len(sweep.trials) - len(pending):
        console.print(f"{done} of {len(sweep.trials)} trainings are on record from this code and machine")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(trial.steps for trial in pending))
        try:
            for trial, now in sweep.steps():
                bar.update(task, advance=1, description=f"{trial.mixer}, seed {trial.seed}")
                if now.result is not None and not console.is_terminal:
                    error, _ = now.result["tests"][0]["errors"]["mixer"]
                    console.print(f"{trial.mixer}, seed {trial.seed}: error {error:.4f}")
        except KeyboardInterrupt:
            return True
    return False


def _print(task: type[Task], found: list[Row]) -> None:
    console = terminal.output()
    settings = list(dict.fromkeys((row.level, row.noise, row.frames) for row in found))
    for level, noise, frames in settings:
        here = [row for row in found if (row.level, row.noise, row.frames) == (level, noise, frames)]
        console.print(
            f"{task.question}  {task.knob.name} {level:g}, noise {noise:g}, {frames} frames: best of the past "
            f"{here[0].past:.4f}, best of all {here[0].whole:.4f}, chance 1",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        table = terminal.table(
            "mixer", "causal", "error", "above the past's best", "above the best", "solved", "verdict", "seeds",
            "parameters", "CPU s",
        )  # fmt: skip
        for row in here:
            style = "red" if row.impossible else None
            table.add_row(
                row.mixer, "yes" if row.causal else "no", str(row.error), str(row.above_past), str(row.above_whole),
                f"{row.solved:.0%}", row.verdict, str(row.seeds), f"{row.parameters:,}", f"{row.processor_s:.0f}",
                style=style,
            )  # fmt: skip
        console.print(table)
    console.print("± is the 95 % interval over seeds, or over sequences when there is one seed.", highlight=False)


def _plain(row: Row) -> dict[str, Any]:
    return asdict(row) | {"solved": row.solved, "impossible": row.impossible, "verdict": row.verdict}
