"""`zoo report`: tables, plots and a page from a record."""

from __future__ import annotations

import json
from pathlib import Path

import click

from temporal_zoo._support.files import write_text


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("runs/bench"))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for the page and the plots.  [default: the folder of the record]")  # fmt: skip
@click.option("--environment", metavar="ID",
              help="Environment to report, if the record has several.  [default: the last one]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print growth as JSON instead of tables.")
def report(path: Path, out: Path | None, environment: str | None, as_json: bool) -> None:
    """Reports the measurements of PATH, a record of `zoo bench` or its folder.

    Prints tables.  Writes report.html, which contains its pictures, growth.png, and one SVG for each setting.
    """
    from bench.analysis import curves, page, plot
    from bench.sweep import results

    from .bench import print_panels

    record = results.load(path, environment)
    panels = curves.panels(record.results)
    folder = out or record.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "report.html", page.page(record))
    plot.save(panels, folder / "growth.png")
    for number, group in enumerate(plot.settings(panels).values(), start=1):
        write_text(folder / f"growth-{number}.svg", plot.svg(group))
    if as_json:
        click.echo(json.dumps([row for panel in panels for row in curves.growth(panel)], indent=1))
    else:
        print_panels(panels)
    if record.busy:
        click.echo(
            f"Other programs used the processors before {record.busy} of {len(record.lines)} processes.", err=True
        )
    for remark in record.remarks:
        click.echo(remark, err=True)
    click.echo(f"Page: {folder / 'report.html'}", err=True)
