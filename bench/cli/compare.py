"""`zoo compare`: two records, case by case."""

from __future__ import annotations

import json
from pathlib import Path

import click

from temporal_zoo._support import terminal


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--other-machine", is_flag=True, help="Compare records from different machines too.")
@click.option("--json", "as_json", is_flag=True, help="Print ratios as JSON instead of tables.")
def compare(first: Path, second: Path, other_machine: bool, as_json: bool) -> None:
    """Compares two records of `zoo bench`, case by case: ratios SECOND / FIRST with intervals.

    Uses the environment of the last measurement of each record.  Refuses records from different machines.
    """
    from bench.analysis.compare import check_same_machine, common_cases, differences, overall, plain, sheets
    from bench.analysis.tables import rich_table
    from bench.sweep import results

    records = {"first": results.load(first), "second": results.load(second)}
    a, b = records.values()
    if not other_machine:
        check_same_machine(a, b)
    pairs = common_cases(a, b)
    for remark in (*a.remarks, *b.remarks):
        click.echo(remark, err=True)
    if as_json:
        click.echo(json.dumps(plain(pairs), indent=1))
        return
    console = terminal.output(highlight=False)
    for name, record in records.items():
        console.print(f"{name}: {record.path}, {record.machine}; {record.code}", markup=False, soft_wrap=True)
    for difference in differences(a, b):
        console.print(difference, markup=False, soft_wrap=True)
    for sheet in sheets(pairs):
        console.print(rich_table(sheet))
    if mean := overall(pairs):
        console.print(f"Time, second / first, geometric mean of {sum(bool(p.time) for p in pairs)} cases: {mean}")
