"""`zoo doctor`: reports what works on this machine, and why the rest does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from temporal_zoo._support import terminal, units
from temporal_zoo._support.options import as_json

if TYPE_CHECKING:
    from rich.table import Table


@click.command(
    short_help="Reports what works on this machine, and why the rest does not.",
    epilog="Exit code 1: with --strict, something is broken.",
)
@as_json
@click.option("--strict", is_flag=True, help="Exit with code 1 if something is broken.")
def doctor(as_json: bool, strict: bool) -> None:
    """Reports which optional packages and backends work on this machine, and why the others do not.

    The command imports every optional package and runs every backend of every op, in subprocesses.  This may take a
    minute.
    """
    from temporal_zoo.cli.doctor_report import build_report

    with terminal.progress() as progress:
        progress.add_task("trying packages and backends", total=None)
        report = build_report()
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print_report(report)
    if strict and report["broken"]:
        raise click.exceptions.Exit(1)


def _print_report(report: dict[str, Any]) -> None:
    console = terminal.output()
    console.print(_machine_grid(report["environment"]))
    packages = terminal.table("package", "state", "for", "why not")
    for row in report["packages"]:
        state = {"works": "used", "unusable": "not usable here"}.get(row["state"], row["state"])
        purpose = ", ".join(row["backends"]) or row["purpose"]
        why = _first_line(row["reason"]) if row["state"] != "works" else ""
        packages.add_row(row["package"], state, purpose, why, style=_style(row["state"] == "broken"))
    console.print(packages)
    for row in report["packages"]:
        if row["fix"]:
            console.print(f"to get {row['package']}: {row['fix']}", markup=False, highlight=False, soft_wrap=True)
    backends = terminal.table("op", "backend", "device", "runs", "auto", "error", "confirmed by", "why not")
    for row in report["backends"]:
        runs = f"{row['dtype']}{'' if row['padded'] else ', no padding'}" if row["runs"] else "no"
        error = "" if row["error"] is None else f"{row['error']:.0e}"
        why = _first_line(row["failure"] or "; ".join(row["reasons"]))
        confirmed = (row["confirmed"] or "nothing yet").rpartition("/")[-1]
        cells = (
            row["op"],
            row["backend"],
            row["device"],
            runs,
            "yes" if row["auto"] else "",
            error,
            confirmed,
            why,
        )
        backends.add_row(*cells, style=_style(row["failure"] is not None))
    console.print(backends)
    console.print(
        "error: largest difference from the float64 reference in values and gradients, relative to its maximum."
    )
    console.print("confirmed by: torch (it runs operators of torch only), our tests on CPUs, or a record of a GPU.")
    console.print("auto: the backend that runs by default.  A backend without confirmation is the default only if the")
    console.print("reference is the only confirmed backend that can run.")
    for line in report["not_tried"]:
        console.print(f"not tried: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    for line in report["broken"]:
        console.print(f"broken: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    if not report["broken"]:
        console.print("Nothing is broken.")


def _machine_grid(environment: dict[str, Any]) -> Table:
    machine, code, grid = environment["machine"], environment["code"], terminal.grid()
    limit = machine["memory_limit_bytes"]
    memory = _memory(machine["memory_bytes"]) + (f", limited to {_memory(limit)}" if limit else "")
    commit = f", commit {code['commit'][:12]}{' with changes' if code['dirty'] else ''}" if code["commit"] else ""
    grid.add_row("temporal-zoo", f"{code['version']}, sources {code['sources']}{commit}")
    grid.add_row("system", machine["system"])
    grid.add_row("processor", f"{machine['processor']}, {machine['usable_cores']} of {machine['cores']} cores")
    grid.add_row("memory", memory)
    if "error" in environment:
        grid.add_row("torch", f"[red]cannot be used: {environment['error']}[/red]")
        return grid
    software = environment["software"]
    cuda = f", CUDA {software['cuda']}" if software["cuda"] else ", built without CUDA"
    grid.add_row("python", software["python"])
    grid.add_row("torch", f"{software['torch']}{cuda}, {environment['threads']['torch']} threads")
    for device in environment["devices"]:
        facts = f"{device['name']}, capability {device['capability']}, {_memory(device['memory_bytes'])}"
        grid.add_row("CUDA device", facts)
    if not environment["devices"]:
        grid.add_row("CUDA device", "none")
    for name, value in environment["settings"].items():
        grid.add_row(name, value)
    return grid


def _style(broken: bool) -> str | None:
    return "red" if broken else None


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _memory(count: int | None) -> str:
    return "unknown" if count is None else units.size(count)
