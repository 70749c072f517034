"""`zoo sample`: draws clips from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusion.cli._progress import bar
from diffusion.config import MOST_FRAMES
from temporal_zoo._support import terminal

if TYPE_CHECKING:
    from diffusion.clip import Clip

MOST_CLIPS = 1_000_000


@click.command(short_help="Samples clips from a trained model: mp4, gif, contact sheet.")
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

    from diffusion.device import open_device
    from diffusion.out_of_memory import telling_when_memory_runs_out
    from diffusion.sampling.generate import levels_visited, load_network, sample_clips
    from diffusion.sampling.video import save_gif, save_mp4, save_sheet
    from diffusion.training.checkpoint import find
    from temporal_zoo._support.environment import environment
    from temporal_zoo._support.packages import need
    from temporal_zoo._support.record import Session

    # Whatever would stop the writing is found before the minutes of drawing.
    need("av", "writing mp4")
    need("PIL.Image", "writing gif and png")
    path, torch_device = find(run), open_device(device)
    clips: list[Clip] = []
    with telling_when_memory_runs_out("fewer --frames, or a smaller --batch"), bar(terminal.messages()) as progress:
        network, config, fps = load_network(path, torch_device)
        folder = out or (Path(run) / "clips" if Path(run).is_dir() else Path("clips"))
        folder.mkdir(parents=True, exist_ok=True)
        task = progress.add_task("drawing", total=count)
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
        from diffusion.sampling.neighbours import save_neighbours

        save_neighbours(folder / "neighbours.png", clips, config.data)
    click.echo(
        f"{count} clips of {clips[0].frames} frames: {folder}/sheet.png, {folder}/all.gif, {folder}/000.mp4 ... "
        f"({sampler}, {visited} of {config.process.steps} noise levels)"
    )
