"""`zoo convert`: weights of other projects as weights of ours."""

from __future__ import annotations

from pathlib import Path

import click

SOURCES = ("mamba_ssm", "vim", "official", "s4", "lucidrains")


@click.command(short_help="Converts weights of other projects to weights of this one.")
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--from", "source", type=click.Choice(SOURCES), required=True, help="The project that wrote the file.")
@click.option("--key", help="Name of the state dict, if the file contains several, such as ema.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value that is not in the file, such as heads=8, merge=mean, prefix=layers.0.mixer.; may be repeated.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write, such as mixer.pt."
)
def convert(checkpoint: Path, source: str, key: str | None, assignments: tuple[str, ...], out: Path) -> None:
    """Converts a layer of another project to a mixer, or a network of arXiv 2403.07711's code to a checkpoint.

    Reads .safetensors, and .pt and .pth files that contain only tensors and plain values.  A layer becomes a file with
    its spec, its width and its state dict; a whole network becomes a checkpoint for `zoo sample`.
    """
    from diffusion.training.converting import convert_file

    for line in convert_file(checkpoint, source, key, assignments, out):
        click.echo(line)
