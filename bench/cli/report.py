"""`zoo report`: tables, plots and a page of a record."""

from __future__ import annotations

import json
from pathlib import Path

import click

from temporal_zoo._support.files import write_text


@click.command(short_help="Writes tables and pages of a record of `zoo bench`.")
@click.argument("place", type=click.Path(path_type=Path), default=Path("runs/bench"))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the page and the plots.  [default: beside the record]")  # fmt: skip
@click.option("--environment", metavar="ID", help="Of which environment, where a record has several.  [default: last]")
@click.option("--json", "as_json", is_flag=True, help="Growth as JSON instead of tables.")
def report(place: Path, out: Path | None, environment: str | None, as_json: bool) -> None:
    """Tables, plots and a page of the measurements in PLACE, a record or the folder of one.

    Leaves report.html, which holds its pictures and loads nothing, growth.png, and one SVG for each setting.
    """
    from bench.analysis import curves, page, plot
    from bench.sweep import results as runs

    from .bench import print_panels

    run = runs.load(place, environment)
    found = curves.panels(run.results)
    folder = out or run.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "report.html", page.page(run))
    plot.save(found, folder / "growth.png")
    for number, here in enumerate(plot.settings(found).values(), start=1):
        write_text(folder / f"growth-{number}.svg", plot.svg(here))
    if as_json:
        click.echo(json.dumps([row for panel in found for row in curves.growth(panel)], indent=1))
    else:
        print_panels(found)
    if run.busy:
        click.echo(f"Before {run.busy} of {len(run.lines)} processes other programs had a good part of the processors.")
    for remark in runs.remarks(run):
        click.echo(remark, err=True)
    click.echo(f"Page: {folder / 'report.html'}", err=True)
