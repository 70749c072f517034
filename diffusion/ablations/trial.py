"""Doing a job: trains its run, or goes on with it, judges the trained network, and writes the results.

On a CPU it takes one thread, whatever the pool: how sums are split among threads changes their last digits, and a
sweep that was interrupted must end as one that was not.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from diffusion.ablations.job import Job, Trial
from diffusion.ablations.judging import draw, held_out_v
from diffusion.ablations.result import Result
from diffusion.device import open_device
from diffusion.training.history import history
from diffusion.training.run import Run
from temporal_zoo._support.environment import code
from temporal_zoo._support.files import write_json
from temporal_zoo.ops import refusing_reference

FAILURE = "failure.json"  # in a run's folder: why its trials have no result
TOLD = "stderr.txt"  # in a run's folder: warnings, and the whole story of a failure

# Told how far a job is: finished training steps, and what it does.
Watch = Callable[[int, str], None]


def attempt(job: Job, watch: Watch = lambda step, doing: None) -> str | None:
    """Does a job; whatever goes wrong is told in the answer and in the run's folder.  None when all went well."""
    try:
        reason = None if do(job, watch) else "interrupted"
    except Exception as error:  # an outcome of the cell, which the table shows, while the sweep goes on
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    if reason != "interrupted":
        note(job, reason)
    return reason


def note(job: Job, reason: str | None) -> None:
    """Writes down why a job failed, or forgets an earlier failure."""
    with suppress(FileNotFoundError):
        (job.run / FAILURE).unlink()
    if reason is not None:
        write_json(job.run / FAILURE, {"reason": reason})


def do(job: Job, watch: Watch) -> bool:
    """Trains and judges; False when Ctrl-C ended the training, after a checkpoint."""
    torch.set_num_threads(1)
    device = open_device(job.device)
    train = job.trials[0].recipe.train
    with refusing_reference():
        run = Run(train, job.run, device, beside=(FAILURE, TOLD))
        watch(run.trainer.step, "training")
        for step, _ in run.steps():
            watch(step.step, "training")
        if not run.finished:
            return False
        for trial in job.trials:
            watch(train.steps, "judging")
            _judged(trial, job, run, device).save(Path(job.folder) / trial.file)
    return True


def _judged(trial: Trial, job: Job, run: Run, device: torch.device) -> Result:
    steps = history(job.run)
    curve = [(step["step"], step["test_loss"]) for step in steps if step["test_loss"] is not None]
    measures: dict[str, float] = {"held_out": curve[-1][1]}
    sheet = None
    if trial.held_out == "v":
        # The logged losses are in the units of the target, in which cells cannot be compared: of the curve, the end.
        measures["held_out"] = held_out_v(run.trainer)
        curve = [(trial.recipe.train.steps, measures["held_out"])]
    if trial.recipe.drawing.count:
        drawn = draw(trial, job, device)
        measures |= drawn.distances
        sheet = f"{trial.run}/{drawn.sheet.name}"
    # The first steps warm caches up, and a step that waited for the machine says nothing: hence the median.
    seconds = statistics.median(step["seconds"] for step in steps)
    costs = trial.costs | {"step_s": seconds}
    return Result(trial.cell, trial.seed, trial.reference, measures, curve, costs, sheet, code()["sources"])
