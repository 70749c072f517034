"""Runs a job: trains or resumes its run, evaluates the trained network, and writes the results.

On a CPU a job uses one thread, whatever the number of workers: the split of sums among threads changes their last
digits, and an interrupted ablation must end with the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from diffusion.ablations.evaluate import evaluate_samples, held_out_v
from diffusion.ablations.job import FAILURE, STDERR, Job
from diffusion.ablations.result import Result
from diffusion.ablations.trial import Trial
from diffusion.device import open_device
from diffusion.training.history import history
from diffusion.training.run import Run
from temporal_zoo._support.environment import code
from temporal_zoo.ops import refusing_reference

# Receives the progress of a job: the number of finished training steps, and the current stage.
ReportStep = Callable[[int, str], None]


def run_job(job: Job, report: ReportStep = lambda step, stage: None) -> str | None:
    """Runs a job; returns None, or the reason of a failure, which it also writes into the run's folder."""
    try:
        reason = None if _train_and_evaluate(job, report) else "interrupted"
    except Exception as error:  # an outcome of the cell: the table shows it, and the other cells go on
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    if reason != "interrupted":
        job.record_failure(reason)
    return reason


def _train_and_evaluate(job: Job, report: ReportStep) -> bool:
    """False when a signal stopped the training; the run then has a checkpoint."""
    torch.set_num_threads(1)
    device = open_device(job.device)
    train = job.trials[0].recipe.train
    with refusing_reference():
        run = Run(train, job.run, device, beside=(FAILURE, STDERR))
        report(run.trainer.step, "training")
        for step, _ in run.steps():
            report(step.step, "training")
        if not run.finished:
            return False
        for trial in job.trials:
            report(train.steps, "evaluating")
            _evaluate(trial, job, run, device).save(Path(job.folder) / trial.file)
    return True


def _evaluate(trial: Trial, job: Job, run: Run, device: torch.device) -> Result:
    steps = history(job.run)
    curve = [(step["step"], step["test_loss"]) for step in steps if step["test_loss"] is not None]
    measures: dict[str, float] = {"held_out": curve[-1][1]}
    sheet = None
    if trial.held_out == "v":
        # Logged losses have the units of the target, so they cannot be compared over cells: the curve is its end.
        measures["held_out"] = held_out_v(run.trainer)
        curve = [(trial.recipe.train.steps, measures["held_out"])]
    if trial.recipe.drawing.count:
        quality = evaluate_samples(trial, job, device)
        measures |= quality.distances
        sheet = f"{trial.run}/{quality.sheet.name}"
    # The median, because the first steps fill caches and some steps wait for the machine.
    seconds = statistics.median(step["seconds"] for step in steps)
    costs = trial.costs | {"step_s": seconds}
    return Result(trial.cell, trial.seed, trial.reference, measures, curve, costs, sheet, code()["sources"])
