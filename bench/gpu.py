"""Measurements on a GPU within a time budget: `python -m bench.gpu quarter`.

The command runs from the root of a checkout, with the installed packages, and needs no installation of its own.  It
appends a record after every case.  So the machine may stop at any time; run the command again to resume.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import click

from temporal_zoo._support.options import FiniteNumber
from temporal_zoo.errors import UserError

from .plan import devices
from .quarter import results

UNFINISHED = 3
_NEEDED = ("torch", "numpy", "einops")
# Backends of these packages are measured if the packages are installed.
_OPTIONAL = ("triton", "mamba_ssm", "causal_conv1d", "flash_attn", "xformers")
# Seconds for the page, at the end.
_RESERVED_S = 5.0


@click.group()
def gpu() -> None:
    """Measures on a GPU within a time budget."""


@gpu.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/gpu"), show_default=True,
              help="Folder for the records and the page.")  # fmt: skip
@click.option(
    "--minutes", type=FiniteNumber(min=1), default=8.0, show_default=True, help="Time budget of this call in minutes."
)
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N or cpu.")
@click.option("--rehearse", is_flag=True, help="Run the whole program with tiny sizes, in two minutes, also on a CPU.")
def quarter(out: Path, minutes: float, device: str, rehearse: bool) -> None:
    """Measures the most valuable cases first, and resumes from the records in OUT.

    The cases are: every backend of every op compared with the float64 reference; kernels; training steps of the
    paper's network, with their planned memory; longer clips; sampling.  Exit code 3 means that cases remain.
    """
    until = time.monotonic() + 60 * minutes - _RESERVED_S
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise click.ClickException(f"not installed: {', '.join(missing)}; pip install {' '.join(missing)}")
    try:
        done = _measure(out, device, until, rehearse=rehearse)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Records: {out / results.RECORD}\nPage:    {_write_page(out / results.RECORD)}", err=True)
    if not done:
        click.echo("Cases remain; run the command again to resume.", err=True)
        raise SystemExit(UNFINISHED)


@gpu.command()
@click.argument("records", type=click.Path(exists=True, path_type=Path))
def page(records: Path) -> None:
    """Writes the page of RECORDS, a file or its folder, into the same folder."""
    try:
        click.echo(_write_page(records / results.RECORD if records.is_dir() else records))
    except UserError as error:
        raise click.ClickException(str(error)) from error


def _measure(out: Path, device: str, until: float, *, rehearse: bool) -> bool:
    from .quarter.loop import BudgetedRun
    from .quarter.plans import BackgroundPlans
    from .quarter.process import ChildProcesses

    absent = [name for name in _OPTIONAL if importlib.util.find_spec(name) is None]
    click.echo(
        f"not installed, so not measured: {', '.join(absent)}" if absent else "all optional packages are installed",
        err=True,
    )
    with ChildProcesses(device) as processes:
        # Imported here, because it imports torch while the child process does the same.
        from .quarter import selection

        first, greeting = processes.start()
        environment = greeting["environment"]
        records = results.GpuResults(out / results.RECORD, environment, device)
        click.echo(f"{records.device}, torch {environment['software']['torch']}", err=True)
        with BackgroundPlans(_planned_as(environment, device)) as plans:
            sizes = selection.REHEARSAL if rehearse else selection.FULL
            groups = selection.groups(greeting["backends"], sizes)
            run = BudgetedRun(groups, records, lambda: processes.start()[0], plans, until=until, child=first,
                              report=lambda line: click.echo(line, err=True))  # fmt: skip
            return run.run()


def _planned_as(environment: dict[str, Any], device: str) -> str:
    """The text that names the device for the planner."""
    if not device.startswith("cuda"):
        return f"cpu:{(environment['machine']['memory_bytes'] or 2**34) / 2**30:.1f}GiB"
    here = environment["devices"][int(device.partition(":")[2] or 0)]
    return devices.like(here["name"], here["memory_bytes"])


def _write_page(records: Path) -> Path:
    from .quarter import page

    path = records.with_name(results.PAGE) if records.name == results.RECORD else records.with_suffix(".md")
    path.write_text(page.page(records), encoding="utf-8")
    return path


if __name__ == "__main__":
    gpu()
