"""`zoo sample`: samples clips from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusion.config import MOST_FRAMES
from temporal_zoo._support import terminal

if TYPE_CHECKING:
    from diffusion.clip import Clip

MOST_CLIPS = 1_000_000


@click.command(short_help="Samples clips from a trained model: mp4, gif, contact sheet.")
@click.argument("run", metavar="RUN")
@click.option(
    "--count", type=click.IntRange(min=1, max=MOST_CLIPS), default=8, show_default=True, help="Clips to sample."
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
    help="The sampler.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Sampling steps, at most the number of noise levels (the paper uses all 256).  "
    "[default: 64, or all noise levels if there are fewer]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Clip i depends on the seed and on i only."
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Clips sampled at a time; does not change the clips.",
)
@click.option("--neighbours", is_flag=True, help="Also show each clip above its nearest training clip.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write.  [default: RUN/clips, or clips]"
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
def sample(run, count, frames, sampler, steps, seed, batch, neighbours, out, device) -> None:
    """Samples clips from a trained model: RUN is a run's folder, a checkpoint, or the shipped builtin:doom.

    Writes an mp4 and a gif of each clip, a gif of all clips, a contact sheet (png), and the settings to record.jsonl.
    By default the sampler visits 64 noise levels, which is faster; the paper visits all 256 (--steps 256).
    """
    from diffusion.device import open_device
    from diffusion.out_of_memory import explain_out_of_memory
    from diffusion.sampling.generate import levels_visited, load_network, sample_clips
    from diffusion.sampling.video import save_gif, save_mp4, save_sheet
    from diffusion.training.checkpoint import find
    from temporal_zoo._support.environment import environment
    from temporal_zoo._support.packages import need
    from temporal_zoo._support.record import Session

    # Checks the optional packages first, because sampling takes minutes.
    need("av", "writing mp4")
    need("PIL.Image", "writing gif and png")
    path, torch_device = find(run), open_device(device)
    clips: list[Clip] = []
    with (
        explain_out_of_memory("fewer --frames, or a smaller --batch"),
        terminal.progress_bar(terminal.messages()) as progress,
    ):
        network, config, fps = load_network(path, torch_device)
        folder = out or (Path(run) / "clips" if Path(run).is_dir() else Path("clips"))
        folder.mkdir(parents=True, exist_ok=True)
        task = progress.add_task("sampling", total=count)
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
