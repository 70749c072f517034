"""Compares two saved runs of the speed tests: `python -m bench.kernels.baselines FOLDER`, part of `nox -s speed`.

pytest-benchmark saves a run as one JSON file, 0001_NAME.json and so on, in a folder for each kind of machine.  This
program compares the last run with the last earlier one whose NAME is `baseline`, or else with the previous one.

pytest-benchmark's own comparison (`--benchmark-compare`, `pytest-benchmark compare`) divides every statistic by the
best one in its group.  It has no interval for the ratio of two medians, and it does not show the stored bytes and the
peak, which the tests save as extra information.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench.analysis.compare import verdict
from bench.analysis.tables import Sheet
from temporal_zoo._support.statistics import Interval, ratio
from temporal_zoo._support.units import number, size

_BASELINE = "baseline"


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def baselines(folder: Path) -> None:
    """Prints the last run of every kind of machine in FOLDER with ratios to its baseline."""
    from bench.analysis.tables import rich_table
    from temporal_zoo._support import terminal

    console = terminal.output(highlight=False)
    for machine in sorted(path for path in folder.iterdir() if path.is_dir()):
        runs = pair(machine)
        if runs is None:
            console.print(f"{machine.name}: there is only one run; run the tests again to compare", markup=False)
            continue
        base, now = runs
        console.print(f"{machine.name}: {now.name} compared with {base.name}", markup=False, soft_wrap=True)
        console.print(rich_table(sheet(_read(base), _read(now))))


def pair(machine: Path) -> tuple[Path, Path] | None:
    """The baseline and the last run in a folder; None if it has only one run."""
    runs = sorted(machine.glob("[0-9]*_*.json"))
    if len(runs) < 2:
        return None
    named = [path for path in runs[:-1] if path.stem.partition("_")[2] == _BASELINE]
    return (named or runs[:-1])[-1], runs[-1]


def sheet(base: dict[str, Any], now: dict[str, Any]) -> Sheet:
    """Ratios of every test that both runs have: time with its interval, stored bytes, peak."""
    rows = []
    for name in (name for name in now if name in base):
        extra, base_extra = now[name]["extra_info"], base[name]["extra_info"]
        time = ratio(_median(now[name]["stats"]), _median(base[name]["stats"]))
        ratios = (_ratio(extra.get(key), base_extra.get(key)) for key in ("stored_bytes", "peak_bytes"))
        median = number(1000 * now[name]["stats"]["median"])
        rows.append((name, median, str(time), *ratios, size(extra.get("peak_bytes", 0)), verdict(time)))
    columns = ("test", "now (ms)", "time, now / baseline", "stored", "peak", "peak now", "")
    return Sheet("", columns, tuple(rows))


def _median(stats: dict[str, float]) -> Interval:
    """The median of the rounds between their quartiles."""
    return Interval(stats["median"], stats["q1"], stats["q3"])


def _ratio(now: int | None, base: int | None) -> str:
    return f"{now / base:.3f}" if base and now is not None else "-"


def _read(path: Path) -> dict[str, Any]:
    """Name of a test -> its saved results."""
    return {each["name"]: each for each in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]}


if __name__ == "__main__":
    baselines()
