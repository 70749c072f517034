"""`zoo info`: shows one mixer."""

from __future__ import annotations

import json

import click

from temporal_zoo._support import terminal
from temporal_zoo._support.options import as_json


@click.command(short_help="Shows one mixer: equation, options, size, backends.")
@click.argument("name")
@as_json
def info(name: str, as_json: bool) -> None:
    """Shows one mixer: its equation, options, size, backends and flavours.

    NAME may contain options, such as bimamba:state=32.
    """
    from temporal_zoo.cli import catalogue

    facts = catalogue.mixer(name)
    if as_json:
        return click.echo(json.dumps(facts, indent=2))
    console = terminal.output()
    console.print(f"[bold]{facts['spec']}[/bold]  {facts['summary']}\n", highlight=False)
    console.print(facts["description"] + "\n", markup=False, highlight=False)
    grid = terminal.grid()
    grid.add_row("paper", facts["paper"])
    grid.add_row("growth in frames T", f"time {facts['time']}, memory {facts['memory']} (declared)")
    grid.add_row("causal", terminal.yes_no(facts["causal"]))
    grid.add_row("depends on frame order", terminal.yes_no(not facts["order_blind"]))
    grid.add_row("runs in chunks", _passes(facts["passes"]))
    grid.add_row(f"parameters at dim {facts['dim']}", f"{facts['parameters']:,}")
    for device, backends in facts["backends"].items():
        text = ", ".join(f"{op}: {backend}" for op, backend in backends.items()) or "calls no op"
        grid.add_row(f"backends on this {device}", text)
    grid.add_row("class", facts["home"])
    console.print(grid)
    table = terminal.table("option", "type", "default", "value", "meaning")
    for option in facts["options"]:
        changed = option["value"] if option["value"] != option["default"] else ""
        table.add_row(option["name"], option["type"], option["default"], changed, option["doc"])
    console.print(table if facts["options"] else "no options")
    for name, spec in facts["flavours"].items():
        console.print(f"flavour {name}: {spec}", highlight=False, soft_wrap=True)
    for spec in facts["examples"]:
        console.print(f"example: {spec}", highlight=False, soft_wrap=True)


def _passes(passes: list[bool]) -> str:
    if not passes:
        return "no"
    return "yes, in time order" + (", then in reverse order" if len(passes) > 1 else "")
