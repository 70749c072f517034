"""`zoo compare`: two records, case by case."""

from __future__ import annotations

import json
from pathlib import Path

import click

from temporal_zoo._support import terminal


@click.command(short_help="Compares two records of `zoo bench`, with intervals.")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--other-machine", is_flag=True, help="Compares also what different machines measured.")
@click.option("--json", "as_json", is_flag=True, help="Ratios as JSON instead of tables.")
def compare(first: Path, second: Path, other_machine: bool, as_json: bool) -> None:
    """Ratios of SECOND to FIRST, two records or their folders, case by case, with their intervals.

    Of each record the environment of its last measurement is taken.  Different machines are refused.
    """
    from bench.analysis import compare as comparison
    from bench.analysis.tables import rich_table
    from bench.sweep import results as runs

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
