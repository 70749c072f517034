"""Evaluates a trained cell: its error on held-out clips, and the distance of sampled clips to real ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusion.ablations import AblationError
from diffusion.ablations.job import Job
from diffusion.ablations.trial import Trial
from diffusion.clip import Clip
from diffusion.evaluation.clips import ClipSet, open_set
from diffusion.evaluation.extractors import open_extractor
from diffusion.evaluation.features import Features, Progress, require_frames, views
from diffusion.evaluation.frechet import frechet
from diffusion.evaluation.protocol import protocol
from diffusion.evaluation.samples import Samples
from diffusion.process.samplers import denoiser
from diffusion.sampling.video import save_sheet
from diffusion.training.trainer import Trainer

SHEET_CLIPS = 4


@dataclass(frozen=True)
class SampleQuality:
    """Distances of sampled clips to real ones, by name, and a contact sheet of some of them."""

    distances: dict[str, float]
    sheet: Path


def held_out_v(trainer: Trainer) -> float:
    """Error of v, for a network with any prediction target, on the clips, noise and levels of `Trainer.test_loss`.

    v - v* = (x_0 - x_0*) / sqrt(1 - ab),  where the estimate of x_0 is clamped as samplers clamp it
    """
    drawn, process, batch = trainer.held_out(), trainer.process, trainer.config.batch
    assert drawn is not None  # `check_evaluation` refuses a run without held-out clips
    denoise = denoiser(trainer.average.module, process)
    errors = []
    for first in range(0, len(drawn.clean), batch):
        clean, noise, levels, _ = drawn.part(first, batch)
        gap = denoise(process.add_noise(clean, noise, levels), levels) - clean
        variance = process.sigma.to(gap.device)[levels].square()
        errors.append(gap.square().mean((1, 2, 3, 4)) / variance)
    return torch.cat(errors).mean().item()


def real_clips(trial: Trial) -> ClipSet:
    """The real clips that sampled clips are compared with: the same for all seeds.

    Raises: DataError, EvaluationError when the data have too few clips.
    """
    data, drawing = trial.recipe.train.data, trial.recipe.drawing
    split = protocol(drawing.protocol).reference
    return open_set(data, split=split, count=drawing.count, frames=data.frames, size=data.size, seed=0)


def check_evaluation(trial: Trial, weights: str | None) -> None:
    """Checks before training that the trial can be evaluated.

    Raises: AblationError without held-out clips; DataError, EvaluationError.
    """
    drawing = trial.recipe.drawing
    if not trial.recipe.train.data.test_share:
        raise AblationError(
            "ablations compare the loss on held-out clips, and data.test_share=0 holds out no clips; set it above zero"
        )
    if drawing.count:
        extractor = open_extractor(drawing.extractor, Path(weights) if weights else None, torch.device("cpu"))
        require_frames(trial.name, trial.recipe.train.data.frames, extractor)
        real_clips(trial)


def evaluate_samples(trial: Trial, job: Job, device: torch.device) -> SampleQuality:
    """Samples clips from the cell's finished run, compares them with real ones, and writes a contact sheet.

    The starting noise of a clip depends on its number and the trial's seed, so all cells have the same noise.
    """
    drawing, settings = trial.recipe.drawing, protocol(trial.recipe.drawing.protocol)
    extractor = open_extractor(drawing.extractor, Path(job.weights) if job.weights else None, device)
    samples = Samples(
        str(job.run), job.run, drawing.count, settings, device, sampler=drawing.sampler, num_steps=drawing.steps,
        seed=trial.seed,
    )  # fmt: skip
    _finish(samples.draw())
    sampled = samples.clips()
    view, *_ = views(sampled.frames, settings, extractor.least_frames)
    sides = [Features(clips, extractor, settings) for clips in (real_clips(trial), sampled)]
    for side in sides:
        _finish(side.computed(view))
    name, _ = extractor.measures
    distance = frechet(*(side[view.name] for side in sides)).value
    sheet = (job.run / trial.file.rpartition("/")[2]).with_suffix(".png")
    save_sheet(sheet, [Clip(sampled.read(number), 1.0) for number in range(min(SHEET_CLIPS, sampled.count))])
    return SampleQuality({"fvd" if name == "FVD" else name: distance}, sheet)


def _finish(work: Iterable[Progress]) -> None:
    for _ in work:
        pass
