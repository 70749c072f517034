"""`zoo report` and `zoo compare`: what records say.  Neither runs anything, and neither needs torch."""

from __future__ import annotations

import json
from pathlib import Path

import click

from temporal_zoo import terminal
from temporal_zoo.files import write_text


@click.command()
@click.argument("place", type=click.Path(path_type=Path), default=Path("runs/bench"))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the page and the plots.  [default: beside the record]")  # fmt: skip
@click.option("--environment", metavar="ID", help="Of which environment, where a record has several.  [default: last]")
@click.option("--json", "as_json", is_flag=True, help="Growth as JSON instead of tables.")
def report(place: Path, out: Path | None, environment: str | None, as_json: bool) -> None:
    """Tables, plots and a page of the measurements in PLACE, a record or the folder of one.

    Leaves report.html, which holds its pictures and loads nothing, growth.png, and one SVG for each setting.
    """
    from . import curves, page, plot, runs
    from .cli import print_panels

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


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--other-machine", is_flag=True, help="Compares also what different machines measured.")
@click.option("--json", "as_json", is_flag=True, help="Ratios as JSON instead of tables.")
def compare(first: Path, second: Path, other_machine: bool, as_json: bool) -> None:
    """Ratios of SECOND to FIRST, two records or their folders, case by case, with their intervals.

    Of each record the environment of its last measurement is taken.  Different machines are refused.
    """
    from . import compare as comparison
    from . import runs
    from .report import rich_table

    a, b = runs.load(first), runs.load(second)
    if not other_machine:
        comparison.check_same_machine(a, b)
    found = comparison.pairs(a, b)
    for remark in (remark for run in (a, b) for remark in runs.remarks(run)):
        click.echo(remark, err=True)
    if as_json:
        click.echo(json.dumps(comparison.plain(found), indent=1))
        return
    console = terminal.output(highlight=False)
    for name, run in (("first", a), ("second", b)):
        console.print(f"{name}: {run.path}, {run.machine}; {run.code}", markup=False, soft_wrap=True)
    for remark in comparison.differences(a, b):
        console.print(remark, markup=False, soft_wrap=True)
    for sheet in comparison.sheets(found):
        console.print(rich_table(sheet))
    if mean := comparison.overall(found):
        console.print(f"Time, second / first, geometric mean of {sum(bool(p.time) for p in found)} cases: {mean}")
