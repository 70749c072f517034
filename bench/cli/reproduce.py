"""`zoo reproduce`: a paper's sizes and memory beside what is counted here."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click

from temporal_zoo._support import terminal
from temporal_zoo._support.files import write_text

_PAPERS = ("2403.07711",)


@click.command(
    short_help="Compares sizes and memory of the paper with our counts.",
    epilog="Exit code 1: a number of parameters differs from the paper.",
)
@click.argument("paper", type=click.Choice(_PAPERS))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/reproduce"),
              show_default=True, help="Folder of the page, the plot and the numbers.")  # fmt: skip
@click.option("--measure", is_flag=True, help="On a GPU: also measure the control that the paper lacks.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def reproduce(paper: str, out: Path, measure: bool, as_json: bool) -> None:
    """Puts a paper's sizes and memory next to what is counted here; needs no GPU.

    Leaves reproduce.md, reproduce.png and reproduce.json in OUT.  With `--measure`, attention that holds its weights,
    fused attention, checkpointed attention, and Mamba in one and both directions run as they are, and what they took is
    appended to OUT/reproduce.jsonl; a page that is made later shows it.
    """
    from bench.paper import control
    from bench.paper import page as reproduce_page
    from bench.paper.reproduce import reproduce as count

    with terminal.progress() as progress:
        task = progress.add_task("", total=None)
        found = count(lambda what: progress.update(task, description=what))
    out.mkdir(parents=True, exist_ok=True)
    record = out / "reproduce.jsonl"
    if measure:
        control.run(record, functools.partial(click.echo, err=True))
    measured = control.read_all(record)
    page = reproduce_page.page(found, measured)
    reproduce_page.plot(found, out / "reproduce.png")
    write_text(out / "reproduce.md", page)
    write_text(out / "reproduce.json", json.dumps(found.to_dict(), indent=1) + "\n")
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else page)
    click.echo(f"Page: {out / 'reproduce.md'}", err=True)
    if not all(row.agrees for row in found.sizes):
        raise SystemExit(1)
