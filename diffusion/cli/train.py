"""`zoo train`: trains a video diffusion model with any mixer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from diffusion.model.mixer_text import short
from diffusion.presets import PRESETS, preset
from temporal_zoo._support import terminal

if TYPE_CHECKING:
    from diffusion.training.run import Run
    from diffusion.training.trainer import StepRecord


@click.command(short_help="Trains a video diffusion model with any mixer, or resumes it.")
@click.option(
    "--mixer",
    help="Mixer of each slot: bimamba, flash:heads=4, bimamba+flash@mid.  [default: the preset's]",
)
@click.option(
    "--preset",
    "preset_name",
    type=click.Choice(list(PRESETS)),
    default="tiny",
    show_default=True,
    help="Configuration to start from.",
)
@click.option(
    "--data",
    "source",
    help="Videos to train on: a file, a folder, builtin:mazes, builtin:doom.  [default: the preset's]",
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Optimizer steps in all; a larger number resumes a finished run."
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of every random choice.")
@click.option("--start", help="Run or checkpoint whose averaged weights are the initial weights, such as builtin:doom.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Sets a field of the configuration, such as model.width=32; can be repeated.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.  [default: runs/PRESET-MIXER]"
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--allow-reference", is_flag=True, help="Train on CUDA even if an op has only its slow reference backend."
)
def train(mixer, preset_name, source, steps, seed, start, assignments, out, device, allow_reference) -> None:
    """Trains a video diffusion model with any mixer.  Run the command again to resume.

    The run's folder holds the configuration, a log, the newest checkpoint, sample sheets and the loss curves.
    Ctrl-C, SIGTERM and SIGHUP stop training and save a checkpoint.  `zoo sample FOLDER` samples clips from it.
    """
    config = preset(preset_name).override(assignments)
    model = config.model if mixer is None else config.model.replace(mixer=mixer)
    data = config.data if source is None else config.data.replace(source=source)
    chosen = {"steps": steps, "seed": seed, "start": start}
    config = config.replace(model=model, data=data, **{k: v for k, v in chosen.items() if v is not None})
    folder = out or Path("runs") / f"{preset_name}-{config.model.mixer.replace(':', '-').replace('=', '')}"

    from diffusion.device import open_device
    from diffusion.out_of_memory import explain_out_of_memory
    from diffusion.training.run import Run
    from temporal_zoo._support.signals import exit_code
    from temporal_zoo.ops import refusing_reference

    console = terminal.messages()
    with (
        refusing_reference(not allow_reference),
        explain_out_of_memory(
            "a smaller batch (--set batch=1), shorter clips (--set data.frames=8), a narrower network (--set "
            "model.width=16), or recomputation (--set model.checkpointing=blocks)"
        ),
        Run(config, folder, open_device(device)) as run,
    ):
        done = run.trainer.step
        if run.finished:
            console.print(
                f"{folder} is finished: {done} of {run.config.steps} steps. To train longer: --steps {2 * done}"
            )
            for name in run.complete():
                console.print(f"{name}: missing, now written")
            return
        console.print(_opening(run))
        for line in run.changed:
            console.print(f"changed since the last start: {line}")
        for step, test_loss in _shown(run, console):
            if test_loss is not None:
                console.print(f"step {step.step}: held-out loss {test_loss:.4f}")
    ending = "finished" if run.finished else "stopped, checkpoint saved; run the command again to resume"
    console.print(f"{ending}: step {run.trainer.step} of {run.config.steps}")
    if run.stopped_by and not run.finished:
        raise click.exceptions.Exit(exit_code(run.stopped_by))
    console.print(f"Results: {folder}/samples and {folder}/loss.png. To sample new clips: zoo sample {folder}")


def _opening(run: Run) -> str:
    parameters = sum(p.numel() for p in run.trainer.network.parameters())
    verb = f"resuming at step {run.trainer.step}" if run.resumed else "training"
    config = run.config
    return (
        f"{verb}: {short(config.model.mixer)}, {parameters:,} parameters, {config.data.source} "
        f"({run.trainer.clips.num_videos} videos), {config.data.frames} frames of "
        f"{config.model.size}x{config.model.size}, batch {config.batch}, to step {config.steps}, in {run.folder}"
    )


def _shown(run: Run, console: Console) -> Iterator[tuple[StepRecord, float | None]]:
    """Yields the steps and shows progress: a bar on a terminal, else a line every `terminal.LOG_SECONDS`."""
    smooth = last_line = None
    with terminal.progress_bar(console, "loss") as progress:
        task = progress.add_task("training", total=run.config.steps, completed=run.trainer.step, loss="")
        for step, test_loss in run.steps():
            smooth = step.loss if smooth is None else 0.95 * smooth + 0.05 * step.loss
            progress.update(task, completed=step.step, loss=f"loss {smooth:.4f}")
            now = time.monotonic()
            if not console.is_terminal and (last_line is None or now - last_line > terminal.LOG_SECONDS):
                console.print(f"step {step.step}/{run.config.steps}  loss {smooth:.4f}  {step.seconds:.2f} s/step")
                last_line = now
            yield step, test_loss
