"""`zoo convert`: weights of other projects as weights of ours."""

from __future__ import annotations

from pathlib import Path

import click

SOURCES = ("mamba_ssm", "vim", "official", "s4", "lucidrains")


@click.command()
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--from", "source", type=click.Choice(SOURCES), required=True, help="The project that wrote the file.")
@click.option("--key", help="Which state dict of the file, where it holds several, such as ema.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="What the file does not say, such as heads=8, merge=mean, prefix=layers.0.mixer.; may be repeated.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write, such as mixer.pt."
)
def convert(checkpoint: Path, source: str, key: str | None, assignments: tuple[str, ...], out: Path) -> None:
    """Converts a layer of another project to a mixer, or a network of arXiv 2403.07711's code to a checkpoint.

    Reads .pt and .pth files that hold tensors and plain values only, and .safetensors.  A layer becomes a file with its
    spec, its width and its state dict; a whole network becomes a checkpoint for `zoo sample`.
    """
    from diffusion.training.converting import convert_file

    for line in convert_file(checkpoint, source, key, assignments, out):
        click.echo(line)
