"""`zoo train` and `zoo sample`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffusion.config import MOST_FRAMES
from diffusion.mixer_text import short
from diffusion.presets import PRESETS, preset

if TYPE_CHECKING:
    from diffusion.clip import Clip
    from diffusion.run import Run
    from diffusion.train import Step

MOST_CLIPS = 1_000_000
LOG_SECONDS = 30  # between two lines where no live display can be drawn


@click.command()
@click.option(
    "--mixer",
    help="Which mixer in which slot: bimamba, flash:heads=4, bimamba+flash@mid.  [default: the preset's]",
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
    "--steps", type=click.IntRange(min=1), help="Train to this step; more than before continues a finished run."
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of every random choice.")
@click.option("--start", help="Begin from the averaged weights of this run or checkpoint, such as builtin:doom.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Any other field, such as model.width=32; may be repeated.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.  [default: runs/PRESET-MIXER]"
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--allow-reference", is_flag=True, help="Train on CUDA even where only a slow reference body can run.")
def train(mixer, preset_name, source, steps, seed, start, assignments, out, device, allow_reference) -> None:
    """Trains a video diffusion model with any mixer; typed again, continues where it stopped.

    The run's folder holds the configuration, a log, the newest checkpoint, sample sheets and the loss curves.
    Ctrl-C, SIGTERM and SIGHUP stop it with a checkpoint.  `zoo sample FOLDER` draws clips from it.
    """
    config = preset(preset_name).override(assignments)
    model = config.model if mixer is None else config.model.replace(mixer=mixer)
    data = config.data if source is None else config.data.replace(source=source)
    chosen = {"steps": steps, "seed": seed, "start": start}
    config = config.replace(model=model, data=data, **{k: v for k, v in chosen.items() if v is not None})
    folder = out or Path("runs") / f"{preset_name}-{config.model.mixer.replace(':', '-').replace('=', '')}"

    from diffusion.device import open_device
    from diffusion.memory import telling_when_memory_runs_out
    from diffusion.run import Run
    from diffusion.signals import exit_code
    from temporal_zoo.ops import refusing_reference

    console = _console()
    with (
        refusing_reference(not allow_reference),
        telling_when_memory_runs_out(
            "a smaller batch (--set batch=1), shorter clips (--set data.frames=8), a narrower network (--set "
            "model.width=16), or recomputation (--set model.checkpointing=blocks)"
        ),
        Run(config, folder, open_device(device)) as run,
    ):
        done = run.trainer.step
        if run.finished:
            wrote = f" It lacked {' and '.join(written)}, which were written." if (written := run.complete()) else ""
            console.print(
                f"{folder} is finished: {done} of {run.config.steps} steps. Train on with --steps {2 * done}.{wrote}"
            )
            return
        console.print(_opening(run))
        for line in run.changed:
            console.print(f"changed since the last start: {line}")
        for step, test_loss in _shown(run, console):
            if test_loss is not None:
                console.print(f"step {step.step}: held-out loss {test_loss:.4f}")
    ending = "finished" if run.finished else "stopped, with a checkpoint; the same command continues"
    console.print(f"{ending}: step {run.trainer.step} of {run.config.steps}")
    if run.stopped_by and not run.finished:
        raise click.exceptions.Exit(exit_code(run.stopped_by))
    console.print(f"Look at {folder}/samples and {folder}/loss.png, or draw new clips: zoo sample {folder}")


def _console() -> Console:
    """For talk on stderr: paths are printed as they are, not read as markup nor wrapped."""
    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def _opening(run: Run) -> str:
    parameters = sum(p.numel() for p in run.trainer.network.parameters())
    verb = f"continuing at step {run.trainer.step}" if run.continued else "training"
    config = run.config
    return (
        f"{verb}: {short(config.model.mixer)}, {parameters:,} parameters, {config.data.source} "
        f"({run.trainer.clips.num_videos} videos), {config.data.frames} frames of "
        f"{config.model.size}x{config.model.size}, batch {config.batch}, to step {config.steps}, in {run.folder}"
    )


def _shown(run: Run, console: Console) -> Iterator[tuple[Step, float | None]]:
    """Passes the steps through and shows how far they are: a live bar, or a line now and then where that cannot be."""
    smooth = last_line = None
    with _bar(console) as progress:
        task = progress.add_task("training", total=run.config.steps, completed=run.trainer.step, loss="")
        for step, test_loss in run.steps():
            smooth = step.loss if smooth is None else 0.95 * smooth + 0.05 * step.loss
            progress.update(task, completed=step.step, loss=f"loss {smooth:.4f}")
            now = time.monotonic()
            if not console.is_terminal and (last_line is None or now - last_line > LOG_SECONDS):
                console.print(f"step {step.step}/{run.config.steps}  loss {smooth:.4f}  {step.seconds:.2f} s/step")
                last_line = now
            yield step, test_loss


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        yield bar


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--count", type=click.IntRange(min=1, max=MOST_CLIPS), default=8, show_default=True, help="Clips to draw."
)
@click.option(
    "--frames",
    type=click.IntRange(min=1, max=MOST_FRAMES),
    help="Frames of each clip.  [default: as trained]",
)
@click.option(
    "--sampler",
    type=click.Choice(["ancestral", "ddim"]),
    default="ancestral",
    show_default=True,
    help="How noise becomes a clip.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Noise levels to visit, of those that the process has (256 in the paper, which visits all of them).  "
    "[default: 64, or all where there are fewer]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Clip i is a function of the seed and i."
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Clips drawn at a time; changes nothing else.",
)
@click.option("--neighbours", is_flag=True, help="Also draw each clip above the training clip that is nearest to it.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write.  [default: RUN/clips, or clips]"
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
def sample(run, count, frames, sampler, steps, seed, batch, neighbours, out, device) -> None:
    """Draws clips from a trained model: RUN is a run's folder, a checkpoint, or builtin:doom, which ships.

    Writes an mp4 and a gif of each clip, a gif of all of them, a contact sheet (png), and into record.jsonl how they
    were drawn.  By default the sampler visits 64 noise levels, which is faster; the paper visits all 256 (--steps 256).
    """

    from diffusion.checkpoint import find
    from diffusion.data.readers import need
    from diffusion.data.storage import made
    from diffusion.device import open_device
    from diffusion.generate import levels_visited, load_network, sample_clips
    from diffusion.memory import telling_when_memory_runs_out
    from diffusion.video import save_gif, save_mp4, save_sheet
    from temporal_zoo.environment import environment
    from temporal_zoo.record import Session

    # Whatever would stop the writing is found before the minutes of drawing.
    need("av", "writing mp4")
    need("PIL.Image", "writing gif and png")
    path, torch_device = find(run), open_device(device)
    clips: list[Clip] = []
    with telling_when_memory_runs_out("fewer --frames, or a smaller --batch"), _bar(_console()) as progress:
        network, config, fps = load_network(path, torch_device)
        folder = made(out or (Path(run) / "clips" if Path(run).is_dir() else Path("clips")))
        task = progress.add_task("drawing", total=count, loss="")
        for first in range(0, count, batch):
            part = min(batch, count - first)
            clips += sample_clips(
                network, config, part, first=first, fps=fps, seed=seed, sampler=sampler, num_steps=steps, frames=frames
            )
            progress.update(task, completed=len(clips))
    visited = levels_visited(config, steps)
    Session(folder / "record.jsonl", environment()).write("samples", {
        "run": str(run), "config": config.to_dict(), "count": count, "frames": clips[0].frames, "seed": seed,
        "sampler": sampler, "levels_visited": visited, "levels": config.process.steps,
    })  # fmt: skip
    for number, clip in enumerate(clips):
        save_mp4(folder / f"{number:03d}.mp4", clip)
        save_gif(folder / f"{number:03d}.gif", clip)
    save_gif(folder / "all.gif", clips)
    save_sheet(folder / "sheet.png", clips)
    if neighbours:
        from diffusion.neighbours import save_neighbours

        save_neighbours(folder / "neighbours.png", clips, config.data)
    click.echo(
        f"{count} clips of {clips[0].frames} frames: {folder}/sheet.png, {folder}/all.gif, {folder}/000.mp4 ... "
        f"({sampler}, {visited} of {config.process.steps} noise levels)"
    )
