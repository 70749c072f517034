"""`zoo reproduce`: compares the sizes and the memory that a paper prints with our counts."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click

from bench.paper.facts import ARXIV
from temporal_zoo._support import terminal
from temporal_zoo._support.files import write_text
from temporal_zoo._support.options import as_json


@click.command(
    short_help="Compares sizes and memory of the paper with our counts.",
    epilog="Exit code 1: a number of parameters differs from the paper.",
)
@click.argument("paper", type=click.Choice((ARXIV,)))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/reproduce"),
              show_default=True, help="Folder for the page, the plot and the numbers.")  # fmt: skip
@click.option("--measure", is_flag=True, help="Also measure the control experiment; needs a GPU.")
@as_json
def reproduce(paper: str, out: Path, measure: bool, as_json: bool) -> None:
    """Compares the sizes and the memory that a paper prints with our counts; needs no GPU.

    Writes reproduce.md, reproduce.png and reproduce.json to OUT.  With `--measure`, the command also runs on the GPU:
    attention that stores its weights, fused attention, recomputed attention, and Mamba in one and both directions.  It
    appends these results to OUT/reproduce.jsonl; the page shows all results of that file.
    """
    from bench.paper import control, page, reproduce

    with terminal.progress() as progress:
        task = progress.add_task("", total=None)
        result = reproduce.reproduce(lambda what: progress.update(task, description=what))
    out.mkdir(parents=True, exist_ok=True)
    record = out / "reproduce.jsonl"
    if measure:
        control.run(record, functools.partial(click.echo, err=True))
    text = page.page(result, control.read_all(record))
    page.plot(result, out / "reproduce.png")
    write_text(out / "reproduce.md", text)
    write_text(out / "reproduce.json", json.dumps(result.to_dict(), indent=1) + "\n")
    click.echo(json.dumps(result.to_dict(), indent=1) if as_json else text)
    click.echo(f"Page: {out / 'reproduce.md'}", err=True)
    if not all(row.agrees for row in result.sizes):
        raise SystemExit(1)
