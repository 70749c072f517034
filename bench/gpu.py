"""What only a GPU can tell, in the minutes that one is at hand: `python -m bench.gpu quarter`.

It runs from the root of a checkout, with the interpreter and the packages that are there, and needs no installation.
Records are appended as cases end, so that the machine may be taken away at any moment; the same command goes on.
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
# Their backends take part where they are installed.
_BENEFICIAL = ("triton", "mamba_ssm", "causal_conv1d", "flash_attn", "xformers")
# For the page, at the end of the minutes.
_RESERVED_S = 5.0


@click.group()
def gpu() -> None:
    """Measurements on a GPU, within a number of minutes."""


@gpu.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/gpu"), show_default=True,
              help="Folder of the records and of the page.")  # fmt: skip
@click.option("--minutes", type=FiniteNumber(min=1), default=8.0, show_default=True, help="Of this call.")
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N or cpu.")
@click.option("--rehearse", is_flag=True, help="Tiny sizes: the whole program in two minutes, also on a CPU.")
def quarter(out: Path, minutes: float, device: str, rehearse: bool) -> None:
    """Measures the most valuable cases first, and goes on where the records in OUT end.

    Every backend of every op against the float64 reference; the kernels; training steps of the paper's network, with
    their planned memory; longer clips; sampling.  Exit code 3 says that there is more to do.
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
        click.echo("There is more to do; the same command goes on from here.", err=True)
        raise SystemExit(UNFINISHED)


@gpu.command()
@click.argument("records", type=click.Path(exists=True, path_type=Path))
def page(records: Path) -> None:
    """Writes the page of RECORDS, a file or its folder, beside them."""
    try:
        click.echo(_write_page(records / results.RECORD if records.is_dir() else records))
    except UserError as error:
        raise click.ClickException(str(error)) from error


def _measure(out: Path, device: str, until: float, *, rehearse: bool) -> bool:
    from .quarter.loop import Quarter
    from .quarter.plans import Plans
    from .quarter.process import Processes

    absent = [name for name in _BENEFICIAL if importlib.util.find_spec(name) is None]
    click.echo(f"not installed, and left out: {', '.join(absent)}" if absent else "nothing is missing", err=True)
    with Processes(device) as processes:
        # Here, because it imports torch, as the process that was just started does meanwhile.
        from .quarter import selection

        first, greeting = processes.start()
        environment = greeting["environment"]
        book = results.Book(out / results.RECORD, environment, device)
        click.echo(f"{book.device}, torch {environment['software']['torch']}", err=True)
        with Plans(_planned_as(environment, device)) as plans:
            scale = selection.REHEARSAL if rehearse else selection.FULL
            groups = selection.groups(greeting["backends"], scale)
            running = Quarter(groups, book, lambda: processes.start()[0], plans, until=until, child=first,
                              talk=lambda line: click.echo(line, err=True))  # fmt: skip
            return running.run()


def _planned_as(environment: dict[str, Any], device: str) -> str:
    """What the planner calls the device."""
    if not device.startswith("cuda"):
        return f"cpu:{(environment['machine']['memory_bytes'] or 2**34) / 2**30:.1f}GiB"
    here = environment["devices"][int(device.partition(":")[2] or 0)]
    return devices.like(here["name"], here["memory_bytes"])


def _write_page(records: Path) -> Path:
    from .quarter.page import page as text

    path = records.with_name(results.PAGE) if records.name == results.RECORD else records.with_suffix(".md")
    path.write_text(text(records), encoding="utf-8")
    return path


if __name__ == "__main__":
    gpu()
