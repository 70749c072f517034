"""Two saved runs of the speed tests as ratios: `python -m bench.kernels.baselines FOLDER`, the end of `nox -s speed`.

pytest-benchmark saves a run as one JSON file, 0001_NAME.json and so on, in a folder for each kind of machine.  The last
one is compared with the last that was saved under the name `baseline`, or else with the one before.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from bench.analysis.compare import Ratio
from bench.analysis.tables import Sheet
from temporal_zoo._support.units import number, size

_BASELINE = "baseline"


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def baselines(folder: Path) -> None:
    """Prints the last run of every kind of machine in FOLDER beside its baseline."""
    from bench.analysis.tables import rich_table
    from temporal_zoo._support import terminal

    console = terminal.output(highlight=False)
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        found = pair(place)
        if found is None:
            console.print(f"{place.name}: one run, nothing to compare it with yet", markup=False)
            continue
        base, now = found
        console.print(f"{place.name}: {now.name} beside {base.name}", markup=False, soft_wrap=True)
        console.print(rich_table(sheet(_read(base), _read(now))))


def pair(place: Path) -> tuple[Path, Path] | None:
    """Baseline and last run in a folder, or None while there is one run only."""
    runs = sorted(place.glob("[0-9]*_*.json"))
    if len(runs) < 2:
        return None
    named = [path for path in runs[:-1] if path.stem.partition("_")[2] == _BASELINE]
    return (named or runs[:-1])[-1], runs[-1]


def sheet(base: dict[str, Any], now: dict[str, Any]) -> Sheet:
    """Ratios of every test that both runs have: time with its interval, stored bytes, peak."""
    rows = []
    for name in (name for name in now if name in base):
        first, second = base[name], now[name]
        time = ratio(first["stats"], second["stats"])
        verdict = ("slower" if time.value > 1 else "faster") if time.differs else ""
        shares = (_share(first["extra_info"], second["extra_info"], key) for key in ("stored_bytes", "peak_bytes"))
        peak = size(second["extra_info"].get("peak_bytes", 0))
        rows.append((name, number(1000 * second["stats"]["median"]), str(time), *shares, peak, verdict))
    columns = ("test", "now (ms)", "time, now / baseline", "stored", "peak", "peak now", "")
    return Sheet("", columns, tuple(rows))


def ratio(base: dict[str, float], now: dict[str, float]) -> Ratio:
    """The ratio of medians; its interval from the distance between the quartiles of both."""
    value = now["median"] / base["median"]
    spread = math.hypot(*(stats["iqr"] / 2 / stats["median"] for stats in (base, now)))
    return Ratio(value, value * (1 - spread), value * (1 + spread))


def _share(base: dict[str, Any], now: dict[str, Any], key: str) -> str:
    return f"{now[key] / base[key]:.3f}" if base.get(key) and key in now else "-"


def _read(path: Path) -> dict[str, Any]:
    """Test -> what was saved of it."""
    return {each["name"]: each for each in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]}


if __name__ == "__main__":
    baselines()
