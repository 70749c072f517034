"""`zoo list`: lists all mixers."""

from __future__ import annotations

import json

import click

from temporal_zoo._support import terminal
from temporal_zoo._support.options import as_json


@click.command(short_help="Lists all mixers and how their cost grows with the frames.")
@as_json
def list_mixers(as_json: bool) -> None:
    """Lists all mixers, with the growth of their time and memory in the number of frames T."""
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
