"""`zoo ablate`: what one choice changes, over cells that share data, noise and a budget."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffusion.ablations import AblationError, catalogue
from diffusion.ablations.ablation import Budget
from temporal_zoo._support import terminal
from temporal_zoo._support.environment import usable_cores

if TYPE_CHECKING:
    from diffusion.ablations.grid import Grid
    from diffusion.ablations.job import Job

INTERRUPTED = 130  # exit code after Ctrl-C, by convention 128 + SIGINT


@click.command(
    short_help="Trains the cells of an ablation and compares them.", epilog="Exit code 1: a training failed."
)
@click.argument("name", required=False)
@click.option("--list", "as_list", is_flag=True, help="List the ablations, each with what it asks.")
@click.option("--scale", default="toy", show_default=True, help="toy: minutes on two cores; paper: as published.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings of each cell.")
@click.option("--data", help="Videos: a file, a folder, builtin:mazes, builtin:doom.  [default: the ablation's]")
@click.option(
    "--budget",
    metavar="KIND[=TARGET]",
    help="What cells are made equal in: steps, parameters, stored_bytes, seconds=120.  [default: the ablation's]",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Any field of what all cells begin from, such as train.steps=100 or drawing.count=0; may be repeated.",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Weights of I3D.  [default: as zoo evaluate finds them]"
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Trainings at a time.  [default: one for each core, or GPU]"
)
@click.option("--launcher", default="local", show_default=True, help="Where they run: local, submitit or ray.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda:N, or cuda: every worker another GPU.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write.  [default: runs/ablate/NAME-SCALE]",
)
@click.option("--dry-run", is_flag=True, help="Show the grid, what it costs, what is done and what is not.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def ablate(
    name, as_list, scale, seeds, data, budget, assignments, weights, workers, launcher, device, out, dry_run, as_json
) -> None:
    """Trains every cell of an ablation on the same clips with the same noise, and says what the choice changes.

    NAME is one of --list.  Typed again, the command goes on where it stopped, however it stopped; results that are
    there are kept.  The folder holds a run for each cell and seed, its result, and a page with tables and pictures.
    """
    if as_list:
        return _list(as_json)
    if name is None:
        raise AblationError(f"which ablation?  There are {', '.join(catalogue.names())}; see: zoo ablate --list")
    chosen = catalogue.get(name, scale)
    if budget is not None:
        chosen = replace(chosen, scale=replace(chosen.scale, budget=Budget.parse(budget)))

    from diffusion.ablations import launch
    from diffusion.ablations.grid import laid_out
    from diffusion.device import open_device

    open_device(device)  # one that is not there is told now
    start = launch.get(launcher)
    extractor, path = _extractor(weights)
    changes = [f"train.data.source={data}"] if data else []
    changes += [f"drawing.extractor={extractor}", *assignments]
    folder = (out or Path("runs") / "ablate" / f"{name}-{scale}").absolute()
    grid = laid_out(chosen, folder, seeds=seeds, changes=tuple(changes), weights=path, device=device)
    if dry_run:
        return _show_grid(grid, as_json)

    from diffusion.ablations.judging import require_judgeable
    from temporal_zoo._support.packages import need

    # What would stop the drawing and the judging is found before the minutes of training.
    need("matplotlib", "drawing what an ablation found")
    need("PIL.Image", "writing contact sheets")
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    _prepare(grid, require_judgeable)
    interrupted = _run(grid, start, workers or _workers(device), console)
    _conclude(grid, as_json)
    if interrupted:
        done = sum(map(grid.is_done, grid.trials))
        console.print(f"stopped after {done} of {len(grid.trials)} trials; the same command continues")
        raise click.exceptions.Exit(INTERRUPTED)
    if grid.failures():
        raise click.exceptions.Exit(1)


def _list(as_json: bool) -> None:
    found = {name: catalogue.summary(name) for name in catalogue.names()}
    if as_json:
        return click.echo(json.dumps(found, indent=2))
    table = terminal.table("ablation", "what it asks")
    for row in found.items():
        table.add_row(*row)
    terminal.output().print(table)


def _extractor(weights: Path | None) -> tuple[str, str | None]:
    """I3D where its weights are found, else the network that needs none, whose distance has a name of its own."""
    from diffusion.evaluation import EvaluationError
    from diffusion.evaluation.weights import VARIABLE, find

    try:
        return "i3d", str(find(weights).absolute())
    except EvaluationError:
        # A place that was named must hold them: a slip must not quietly change what is measured.
        if weights is not None or os.environ.get(VARIABLE):
            raise
        return "plain", None


def _workers(device: str) -> int:
    if device != "cpu":
        import torch

        return torch.cuda.device_count() if device == "cuda" else 1
    return usable_cores()


def _prepare(grid: Grid, require_judgeable: Any) -> None:
    """Decodes the videos once, before several processes want them, and says what no cell could be judged with."""
    from diffusion.data import open_clips

    pending = [trial for trial in grid.trials if not grid.is_done(trial)]
    for data in dict.fromkeys(trial.recipe.train.data for trial in pending):
        for split in ("train", "test"):
            open_clips(data, split=split)
    kinds = {(trial.recipe.train.data, trial.recipe.drawing): trial for trial in pending}
    for trial in kinds.values():
        require_judgeable(trial, grid.weights)


def _run(grid: Grid, start: Any, workers: int, console: Console) -> bool:
    """Does what is pending and shows how far it is; whether it was interrupted."""
    jobs = grid.jobs()
    if done := sum(map(grid.is_done, grid.trials)):
        console.print(f"{done} of {len(grid.trials)} trials are done")
    for trial in grid.trials:
        if not trial.matched:
            console.print(f"{trial.name}: no match, {trial.costs['off_budget']:+.0%} off the budget")
    if not jobs:
        return False
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        every = bar.add_task("all trainings", total=sum(job.steps for job in jobs))
        tasks = {job.run: bar.add_task(job.name, total=job.steps, visible=False) for job in jobs}
        reached = dict.fromkeys(tasks, 0)

        def watch(job: Job, step: int, doing: str) -> None:
            bar.update(tasks[job.run], completed=step, visible=True, description=f"{job.name}, {doing}")
            reached[job.run] = step
            bar.update(every, completed=sum(reached.values()))

        try:
            for number, (job, reason) in enumerate(start(jobs, workers, watch), start=1):
                bar.update(tasks[job.run], visible=False)
                bar.update(every, completed=sum((reached | {job.run: job.steps}).values()))
                reached[job.run] = job.steps
                told = "done" if reason is None else f"failed: {reason}"
                console.print(f"{number} of {len(jobs)}  {job.name}: {told}")
        except KeyboardInterrupt:
            return True
    return False


def _conclude(grid: Grid, as_json: bool) -> None:
    """Tables, page and verdict of what there is."""
    from diffusion.ablations import page
    from diffusion.ablations.comparison import cells, effect, grouped, measures
    from diffusion.ablations.words import (
        cells_sheet,
        differences_sheet,
        measure_words,
        mixture,
        rich_table,
        sentence,
    )
    from temporal_zoo._support.environment import environment

    ablation, results, failures = grid.ablation, grid.results(), grid.failures()
    found = cells(results)
    command = shlex.join(["zoo", *sys.argv[1:]])
    written = page.write(
        grid.folder, name=ablation.name, question=ablation.question, scale=ablation.scale_name, command=command,
        environment=environment(), results=results, failures=failures, contrasts=ablation.contrasts,
        settings=grid.settings(), apart=ablation.apart,
    )  # fmt: skip
    kinds = measures(found)
    verdicts = [sentence(effect(found, contrast, kind)) for kind in kinds for contrast in ablation.contrasts]
    if as_json:
        facts = {"results": [asdict(result) for result in results], "failures": failures, "verdicts": verdicts}
        return click.echo(json.dumps(facts, indent=2))
    console = terminal.output()
    if found:
        console.print(rich_table(cells_sheet(found, failures)))
    for kind in kinds:
        for title, gaps in grouped(found, ablation.contrasts, kind, ablation.apart).items():
            console.print(rich_table(differences_sheet(gaps), f"{measure_words(kind)}, {title}"))
    click.echo(f"Look at {written}")
    for told in filter(None, (*verdicts, mixture(results))):
        click.echo(told)


def _show_grid(grid: Grid, as_json: bool) -> None:
    from diffusion.ablations.words import bytes_text

    failures = grid.failures()
    states = [
        "done" if grid.is_done(trial) else "failed" if trial.name in failures else "pending" for trial in grid.trials
    ]
    rows = [
        {"trial": trial.name, "folder": trial.run, "state": state, **trial.costs, "steps": trial.recipe.train.steps,
         "matched": trial.matched}
        for trial, state in zip(grid.trials, states, strict=True)
    ]  # fmt: skip
    if as_json:
        return click.echo(json.dumps(rows, indent=2))
    console, ablation = terminal.output(), grid.ablation
    console.print(f"{ablation.question}  Scale {ablation.scale_name}, in {grid.folder}", highlight=False)
    table = terminal.table(
        "trial", "state", "parameters", "stored, one clip", "width", "steps", "off the budget", "folder"
    )
    for trial, state, row in zip(grid.trials, states, rows, strict=True):
        off = trial.costs.get("off_budget")
        table.add_row(
            trial.name, state, f"{row['parameters']:,}", bytes_text(trial.costs["stored_bytes"]),
            str(trial.recipe.train.model.width), f"{row['steps']:,}",
            "" if off is None else f"{off:+.1%}" + ("" if trial.matched else ", no match"), trial.run,
            style=None if trial.matched else "red",
        )  # fmt: skip
    console.print(table)
