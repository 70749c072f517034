"""The commands about mixers and about this machine: `zoo list`, `zoo info`, `zoo check`, `zoo doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from temporal_zoo import terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.command()
@as_json
def list_mixers(as_json: bool) -> None:
    """List all mixers: what they are and how their time and memory grow with the number of frames T."""
    from temporal_zoo import catalogue

    rows = catalogue.mixers()
    if as_json:
        return click.echo(json.dumps(rows, indent=2))
    table = terminal.table("name", "summary", "time", "memory", "causal", "paper")
    for row in rows:
        if "error" in row:
            table.add_row(row["name"], f"cannot be loaded: {row['error']}", style="red")
        else:
            known = (row["name"], row["summary"], row["time"], row["memory"], _yes_no(row["causal"]), row["paper"])
            table.add_row(*known)
    terminal.output().print(table)


@click.command()
@click.argument("name")
@as_json
def info(name: str, as_json: bool) -> None:
    """Tell all about one mixer.  NAME may carry options, such as bimamba:state=32."""
    from temporal_zoo import catalogue

    facts = catalogue.mixer(name)
    if as_json:
        return click.echo(json.dumps(facts, indent=2))
    console = terminal.output()
    console.print(f"[bold]{facts['spec']}[/bold]  {facts['summary']}\n", highlight=False)
    console.print(facts["description"] + "\n", markup=False, highlight=False)
    grid = _grid()
    grid.add_row("paper", facts["paper"])
    grid.add_row("growth in frames T", f"time {facts['time']}, memory {facts['memory']} (declared)")
    grid.add_row("causal", _yes_no(facts["causal"]))
    grid.add_row("notices frame order", _yes_no(not facts["order_blind"]))
    grid.add_row("in chunks", _passes(facts["passes"]))
    grid.add_row(f"parameters at dim {facts['dim']}", f"{facts['parameters']:,}")
    for device, bodies in facts["bodies"].items():
        told = ", ".join(f"{op}: {body}" for op, body in bodies.items()) or "calls no op"
        grid.add_row(f"bodies on {device} here", told)
    grid.add_row("class", facts["home"])
    console.print(grid)
    table = terminal.table("option", "type", "default", "here", "what it is")
    for option in facts["options"]:
        changed = option["value"] if option["value"] != option["default"] else ""
        table.add_row(option["name"], option["type"], option["default"], changed, option["doc"])
    console.print(table if facts["options"] else "no options")
    for name, spec in facts["flavours"].items():
        console.print(f"flavour {name}: {spec}", highlight=False, soft_wrap=True)
    for spec in facts["examples"]:
        console.print(f"example: {spec}", highlight=False, soft_wrap=True)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def check(names: tuple[str, ...]) -> None:
    """Run the mixer contract over mixers and their example options (all mixers when none is named).

    NAME may carry options, such as bimamba:state=32; then only these are checked.  The exit code is 1 if a check fails.
    """
    from temporal_zoo import catalogue, registry

    # All questions are read before the first answer: a misspelt last name must not cost the time of the others.
    specs = [spec for name in names or registry.names() for spec in catalogue.specs(name)]
    console = terminal.output()
    with _progress() as progress:
        task = progress.add_task("", total=None)
        verdicts = [_check_one(spec, console, progress, task) for spec in specs]
    if not all(verdicts):
        raise click.exceptions.Exit(1)


def _check_one(spec: str, console: Console, progress: Progress, task: TaskID) -> bool:
    from temporal_zoo.catalogue import DIM
    from temporal_zoo.contract import CHECKS, outcomes
    from temporal_zoo.registry import build

    progress.reset(task, description=spec, total=len(CHECKS))
    failures = []
    try:
        build(spec, DIM)
    except Exception as error:  # a stranger's constructor; without a mixer every check would only repeat this
        outcome, failures = "cannot be built", [(type(error).__name__, str(error))]
    else:
        for name, failure in outcomes(lambda: build(spec, DIM)):
            progress.advance(task)
            failures += [(name, failure)] if failure is not None else []
        outcome = f"{len(failures)} of {len(CHECKS)} checks failed" if failures else f"{len(CHECKS)} checks passed"
    console.print(f"{spec}: {outcome}", style="red" if failures else "green", highlight=False, soft_wrap=True)
    for name, failure in failures:
        console.print(f"  {name}: {failure}", markup=False, highlight=False, soft_wrap=True)
    return not failures


@click.command()
@as_json
@click.option("--strict", is_flag=True, help="Exit with 1 when something is broken.")
def doctor(as_json: bool, strict: bool) -> None:
    """Say what works on this machine, and exactly why the rest does not.

    May take a minute: every optional package is imported and every body of every op tried, in processes of their own.
    """
    from temporal_zoo.doctor import examine

    with _progress() as progress:
        progress.add_task("trying packages and bodies", total=None)
        report = examine()
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
        purpose = ", ".join(row["bodies"]) or row["purpose"]
        why = _first_line(row["reason"]) if row["state"] != "works" else ""
        packages.add_row(row["package"], state, purpose, why, style=_style(row["state"] == "broken"))
    console.print(packages)
    for row in report["packages"]:
        if row["fix"]:
            console.print(f"to get {row['package']}: {row['fix']}", markup=False, highlight=False, soft_wrap=True)
    bodies = terminal.table("op", "backend", "device", "runs", "auto", "differs by", "confirmed by", "why not")
    for row in report["bodies"]:
        example = f"{row['dtype']}{'' if row['padded'] else ', no padding'}" if row["runs"] else "no"
        error = "" if row["error"] is None else f"{row['error']:.0e}"
        why = _first_line(row["failure"] or "; ".join(row["reasons"]))
        confirmed = (row["confirmed"] or "nothing yet").rpartition("/")[-1]
        cells = (row["op"], row["body"], row["device"], example, "takes" if row["auto"] else "", error, confirmed, why)
        bodies.add_row(*cells, style=_style(row["failure"] is not None))
    console.print(bodies)
    console.print("Differences are from the float64 reference, in values and gradients, relative to the largest entry.")
    console.print("A backend is confirmed by torch (its own operators), by our tests on CPUs, or by a record of a GPU.")
    console.print("`auto` takes one that nothing has confirmed only where no confirmed one but the reference can run.")
    for line in report["not_tried"]:
        console.print(f"not tried: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    for line in report["broken"]:
        console.print(f"broken: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    if not report["broken"]:
        console.print("Nothing is broken.")


def _machine_grid(environment: dict[str, Any]) -> Table:
    machine, code, grid = environment["machine"], environment["code"], _grid()
    limit = machine["memory_limit_bytes"]
    memory = _gib(machine["memory_bytes"]) + (f", limited to {_gib(limit)}" if limit else "")
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
        told = f"{device['name']}, capability {device['capability']}, {_gib(device['memory_bytes'])}"
        grid.add_row("CUDA device", told)
    if not environment["devices"]:
        grid.add_row("CUDA device", "none")
    for name, value in environment["settings"].items():
        grid.add_row(name, value)
    return grid


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True)


def _grid() -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _style(broken: bool) -> str | None:
    return "red" if broken else None


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _passes(passes: list[bool]) -> str:
    if not passes:
        return "no"
    return "yes, in time order" + (" and once more against it" if len(passes) > 1 else "")


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _gib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"
