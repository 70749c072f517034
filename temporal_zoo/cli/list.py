"""`zoo list`: all mixers, and how their cost grows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from temporal_zoo._support import terminal
from temporal_zoo._support.options import as_json

if TYPE_CHECKING:
    pass


@click.command()
@as_json
def list_mixers(as_json: bool) -> None:
    """List all mixers: what they are and how their time and memory grow with the number of frames T."""
    from temporal_zoo.cli import catalogue

    rows = catalogue.mixers()
    if as_json:
        return click.echo(json.dumps(rows, indent=2))
    table = terminal.table("name", "summary", "time", "memory", "causal", "paper")
    for row in rows:
        if "error" in row:
            table.add_row(row["name"], f"cannot be loaded: {row['error']}", style="red")
        else:
            growth, causal = (row["time"], row["memory"]), terminal.yes_no(row["causal"])
            table.add_row(row["name"], row["summary"], *growth, causal, row["paper"])
    terminal.output().print(table)
