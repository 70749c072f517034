"""`zoo check`: runs the contract of mixers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from temporal_zoo._support import terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


@click.command(
    short_help="Runs the contract over mixers and their example options.", epilog="Exit code 1: a check failed."
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
def check(names: tuple[str, ...]) -> None:
    """Runs the contract over mixers and their example options; without NAME, over all mixers.

    NAME may contain options, such as bimamba:state=32; then only these options are checked.
    """
    from temporal_zoo import registry
    from temporal_zoo.cli import catalogue

    # Parses all names first, because the checks take minutes.
    specs = [spec for name in names or registry.names() for spec in catalogue.specs(name)]
    console = terminal.output()
    with terminal.progress() as progress:
        task = progress.add_task("", total=None)
        passed = [_check_one(spec, console, progress, task) for spec in specs]
    if not all(passed):
        raise click.exceptions.Exit(1)


def _check_one(spec: str, console: Console, progress: Progress, task: TaskID) -> bool:
    """Runs and prints the checks of one spec; returns whether all passed."""
    from temporal_zoo.cli.catalogue import DIM
    from temporal_zoo.contract import CHECKS, outcomes
    from temporal_zoo.registry import build

    progress.reset(task, description=spec, total=len(CHECKS))
    failures = []
    try:
        build(spec, DIM)
    except Exception as error:  # a mixer of another project may raise any error; every check would repeat it
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
