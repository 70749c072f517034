"""`zoo ablate`: trains the cells of an ablation on equal terms and compares them."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusion.ablations import AblationError, catalogue
from diffusion.ablations.budget import Budget
from temporal_zoo._support import terminal
from temporal_zoo._support.environment import usable_cores

if TYPE_CHECKING:
    from rich.console import Console

    from diffusion.ablations.grid import Grid
    from diffusion.ablations.job import Job
    from diffusion.ablations.launch import Launch


@click.command(
    short_help="Trains the cells of an ablation and compares them.", epilog="Exit code 1: a training failed."
)
@click.argument("name", required=False)
@click.option("--list", "as_list", is_flag=True, help="List the ablations with their questions.")
@click.option("--scale", default="toy", show_default=True, help="toy: minutes on two cores; paper: the published size.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings per cell.")
@click.option("--data", help="Videos: a file, a folder, builtin:mazes, builtin:doom.  [default: the ablation's]")
@click.option(
    "--budget",
    metavar="KIND[=TARGET]",
    help="Quantity in which cells are equal: steps, parameters, stored_bytes, seconds=120.  [default: the ablation's]",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Set a field of the base recipe, such as train.steps=100 or drawing.count=0; may be repeated.",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="File with the weights of I3D.  [default: as in zoo evaluate]"
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of parallel trainings.  [default: one per core or GPU]"
)
@click.option("--launcher", default="local", show_default=True, help="Where trainings run: local, submitit or ray.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda:N, or cuda (each worker uses another GPU).")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Output folder.  [default: runs/ablate/NAME-SCALE]",
)
@click.option("--dry-run", is_flag=True, help="Show the trials with their costs and states; train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def ablate(
    name, as_list, scale, seeds, data, budget, assignments, weights, workers, launcher, device, out, dry_run, as_json
) -> None:
    """Trains every cell of an ablation on the same clips with the same noise, and compares the cells.

    NAME is an ablation of --list.  Run the command again to resume after any kind of stop; finished trials keep their
    results.  The folder contains a run and a result for each cell and seed, and a page with tables and figures.
    """
    if as_list:
        return _list(as_json)
    if name is None:
        raise AblationError(f"NAME is missing; choose from {', '.join(catalogue.names())} (see zoo ablate --list)")
    chosen = catalogue.get(name, scale)
    if budget is not None:
        chosen = replace(chosen, scale=replace(chosen.scale, budget=Budget.parse(budget)))

    from diffusion.ablations import launch
    from diffusion.ablations.grid import build_grid
    from diffusion.device import open_device

    open_device(device)  # an error for a missing device comes first
    start = launch.get(launcher)
    extractor, path = _extractor(weights)
    changes = [f"train.data.source={data}"] if data else []
    changes += [f"drawing.extractor={extractor}", *assignments]
    folder = (out or Path("runs") / "ablate" / f"{name}-{scale}").absolute()
    grid = build_grid(chosen, folder, seeds=seeds, changes=tuple(changes), weights=path, device=device)
    if dry_run:
        return _show_grid(grid, as_json)

    from temporal_zoo._support.packages import need
    from temporal_zoo._support.signals import exit_code

    # Checks the optional packages first, because training takes minutes.
    need("matplotlib", "drawing the figures of an ablation")
    need("PIL.Image", "writing contact sheets")
    console = terminal.messages()
    _prepare(grid)
    stopped_by = _run(grid, start, workers or _workers(device), console)
    _report(grid, as_json)
    if stopped_by:
        done = sum(map(grid.is_done, grid.trials))
        console.print(f"stopped after {done} of {len(grid.trials)} trials; run the same command again to resume")
        raise click.exceptions.Exit(exit_code(stopped_by))
    if grid.failures():
        raise click.exceptions.Exit(1)


def _list(as_json: bool) -> None:
    summaries = {name: catalogue.summary(name) for name in catalogue.names()}
    if as_json:
        return click.echo(json.dumps(summaries, indent=2))
    table = terminal.table("ablation", "question")
    for row in summaries.items():
        table.add_row(*row)
    terminal.output().print(table)


def _extractor(weights: Path | None) -> tuple[str, str | None]:
    """I3D where its weights exist, else the extractor without weights, whose distance has another name."""
    from diffusion.evaluation import EvaluationError
    from diffusion.evaluation.weights import VARIABLE, find

    try:
        return "i3d", str(find(weights).absolute())
    except EvaluationError:
        # A path that the user gave must exist: a typing error must not silently change the measure.
        if weights is not None or os.environ.get(VARIABLE):
            raise
        return "plain", None


def _workers(device: str) -> int:
    if device != "cpu":
        import torch

        return torch.cuda.device_count() if device == "cuda" else 1
    return usable_cores()


def _prepare(grid: Grid) -> None:
    """Decodes the videos once, before several processes need them, and checks that all trials can be evaluated."""
    from diffusion.ablations.evaluate import check_evaluation
    from diffusion.data import open_clips

    pending = [trial for trial in grid.trials if not grid.is_done(trial)]
    for data in dict.fromkeys(trial.recipe.train.data for trial in pending):
        for split in ("train", "test"):
            open_clips(data, split=split)
    kinds = {(trial.recipe.train.data, trial.recipe.drawing): trial for trial in pending}
    for trial in kinds.values():
        check_evaluation(trial, grid.weights)


def _run(grid: Grid, start: Launch, workers: int, console: Console) -> int | None:
    """Runs the pending jobs and shows their progress; returns the signal that stopped them, or None."""
    from temporal_zoo._support.signals import stoppable

    jobs = grid.jobs()
    if done := sum(map(grid.is_done, grid.trials)):
        console.print(f"{done} of {len(grid.trials)} trials are done")
    for trial in grid.trials:
        if not trial.matched:
            console.print(f"{trial.name}: no match, {trial.costs['off_budget']:+.0%} from the budget")
    if not jobs:
        return None
    with stoppable(interrupt=True) as stop, suppress(KeyboardInterrupt), terminal.progress_bar(console) as progress:
        total = progress.add_task("all trainings", total=sum(job.steps for job in jobs))
        tasks = {job.run: progress.add_task(job.name, total=job.steps, visible=False) for job in jobs}
        reached = dict.fromkeys(tasks, 0)

        def report(job: Job, step: int, stage: str) -> None:
            progress.update(tasks[job.run], completed=step, visible=True, description=f"{job.name}, {stage}")
            reached[job.run] = step
            progress.update(total, completed=sum(reached.values()))

        for number, (job, reason) in enumerate(start(jobs, workers, report), start=1):
            report(job, job.steps, "done")
            progress.update(tasks[job.run], visible=False)
            console.print(f"{number} of {len(jobs)}  {job.name}: {'done' if reason is None else f'failed: {reason}'}")
    return stop.signal


def _report(grid: Grid, as_json: bool) -> None:
    """Writes the page, and prints tables and verdicts of the finished trials."""
    from diffusion.ablations.comparison import cells, effect, grouped, measures
    from diffusion.ablations.page import write_page
    from diffusion.ablations.tables import cells_table, differences_table, rich_table
    from diffusion.ablations.text import measure_label, verdict, version_warning
    from temporal_zoo._support.environment import environment

    ablation, results, failures = grid.ablation, grid.results(), grid.failures()
    all_cells = cells(results)
    command = shlex.join(["zoo", *sys.argv[1:]])
    page = write_page(
        grid.folder, name=ablation.name, question=ablation.question, scale=ablation.scale_name, command=command,
        environment=environment(), results=results, failures=failures, contrasts=ablation.contrasts,
        settings=grid.settings(), apart=ablation.apart,
    )  # fmt: skip
    names = measures(all_cells)
    verdicts = [verdict(effect(all_cells, contrast, name)) for name in names for contrast in ablation.contrasts]
    if as_json:
        facts = {"results": [asdict(result) for result in results], "failures": failures, "verdicts": verdicts}
        return click.echo(json.dumps(facts, indent=2))
    console = terminal.output()
    if all_cells:
        console.print(rich_table(cells_table(all_cells, failures)))
    for name in names:
        for title, gaps in grouped(all_cells, ablation.contrasts, name, ablation.apart).items():
            console.print(rich_table(differences_table(gaps), f"{measure_label(name)}, {title}"))
    click.echo(f"Page: {page}")
    for line in filter(None, (*verdicts, version_warning(results))):
        click.echo(line)


def _show_grid(grid: Grid, as_json: bool) -> None:
    from temporal_zoo._support.units import size

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
        "trial", "state", "parameters", "stored, one clip", "width", "steps", "from the budget", "folder"
    )
    for trial, state, row in zip(grid.trials, states, rows, strict=True):
        off = trial.costs.get("off_budget")
        table.add_row(
            trial.name, state, f"{row['parameters']:,}", size(trial.costs["stored_bytes"]),
            str(trial.recipe.train.model.width), f"{row['steps']:,}",
            "" if off is None else f"{off:+.1%}" + ("" if trial.matched else ", no match"), trial.run,
            style=None if trial.matched else "red",
        )  # fmt: skip
    console.print(table)
