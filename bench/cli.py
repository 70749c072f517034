"""`zoo bench`: time and memory of mixers against the number of frames."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from temporal_zoo.record import read

from .case import DIM, DTYPES, LEVELS, MODES, ROWS, Case, expand, parse_lengths

if TYPE_CHECKING:
    from .curves import Panel, Result

_BUDGET_S = 1.5


@click.command()
@click.option(
    "--layers", default="attn,bimamba", show_default=True, help="Mixers, separated by commas; options after colons."
)
@click.option("--lengths", default="16,64,256", show_default=True, help="Numbers of frames, separated by commas.")
@click.option("--level", type=click.Choice([*LEVELS, "both"]), default="both", show_default=True,
              help="A bare mixer, or the whole denoiser around it.")  # fmt: skip
@click.option("--mode", type=click.Choice([*MODES, "both"]), default="both", show_default=True,
              help="A forward pass, or a training step.")  # fmt: skip
@click.option("--rows", type=click.IntRange(min=1), help=f"Sequences at a time of a bare mixer.  [default: {ROWS}]")
@click.option("--dim", type=click.IntRange(min=1), help=f"Width of a bare mixer.  [default: {DIM}]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float32",
    show_default=True,
    help="Precision; the short ones by autocast.",
)
@click.option(
    "--backend", "backends", multiple=True, metavar="OP=BODY", help="Pins the body of an op; may be repeated."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/bench"), show_default=True,
              help="Folder of the record and the plot.")  # fmt: skip
@click.option("--suite", type=click.Choice(["kernels"]),
              help="Instead of mixers: every body of every op, checked, then timed against peers.")  # fmt: skip
@click.option("--peers", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Of the suite: folder with sources of peers that cannot be installed.")  # fmt: skip
@click.option("--repetitions", type=click.IntRange(min=1), help="Of the suite: turns of everybody.  [default: 5]")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON instead of tables.")
@click.option("--dry-run", is_flag=True, help="Print the cases and stop.")
@click.pass_context
def bench(
    context: click.Context, layers: str, lengths: str, level: str, mode: str, rows: int | None, dim: int | None,
    device: str, dtype: str, backends: tuple[str, ...], out: Path, suite: str | None, peers: Path | None,
    repetitions: int | None, as_json: bool, dry_run: bool,
) -> None:  # fmt: skip
    """Measures how time and memory of mixers grow with the number of frames.

    Time and peak memory are measured in separate passes; what is stored for the backward pass is counted exactly.
    Running out of memory is a result.  Appends a record of every case to OUT/records.jsonl and draws OUT/growth.png.
    Exit code 1 when a case failed.

    `--suite kernels` leaves a record kernels.jsonl, a plot kernels.png and a page kernels.md in OUT.  It takes minutes
    and wants the machine for itself.
    """
    _refuse_options(context, suite)
    if suite:
        _kernels(lengths, peers, repetitions, out, as_json, dry_run)
        return
    cases = expand(
        layers=layers, lengths=lengths, level=level, mode=mode, rows=rows, dim=dim, dtype=dtype, device=device,
        backends=backends,
    )  # fmt: skip
    if dry_run:
        click.echo(json.dumps([case.to_dict() for case in cases], indent=1) if as_json else _listing(cases))
        return
    # All imports first: a package that is missing is better missed now than after the last case.
    from . import curves, plot
    from .sweep import sweep

    record, picture = out / "records.jsonl", out / "growth.png"
    results = sweep(cases, record, budget_s=_BUDGET_S, talk=functools.partial(click.echo, err=True))
    panels = curves.panels(results)
    plot.save(panels, picture)
    if as_json:
        click.echo(_json(results, panels))
    else:
        _print(panels)
    click.echo(f"Record: {record}\nPlot:   {picture}", err=True)
    if any(result.outcome.status == "failed" for result in results):
        raise SystemExit(1)


def _refuse_options(context: click.Context, suite: str | None) -> None:
    """Options that would have no effect are refused, not ignored."""
    common = {"lengths", "out", "as_json", "dry_run", "suite"}
    of_suite = {"peers", "repetitions"}
    given = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    }
    if suite and (strays := [text for name, text in given.items() if name not in common | of_suite]):
        raise click.UsageError(f"the suite {suite!r} takes no {', '.join(strays)}: it measures ops, on the CPU")
    if not suite and (strays := [text for name, text in given.items() if name in of_suite]):
        raise click.UsageError(f"{', '.join(strays)} belongs to `--suite kernels`")


def _kernels(
    lengths: str, peers: Path | None, repetitions: int | None, out: Path, as_json: bool, dry_run: bool
) -> None:
    from . import kernels, kernels_report
    from .problems import SUBJECTS

    plan = kernels.Plan(tuple(parse_lengths(lengths)), repetitions or 5, peers)
    if dry_run:
        for subject, frames, here in plan.comparisons():
            known = ", ".join(each.name if each.run else f"{each.name} (missing)" for each in here)
            click.echo(f"{SUBJECTS[subject].title}, {frames} frames: {known}")
        return
    record, picture, page = (out / f"kernels.{ending}" for ending in ("jsonl", "png", "md"))
    # The digests in the record name the sources; where they lay on this machine helps nobody.
    command = f"zoo bench --suite kernels --lengths {lengths} --repetitions {plan.repetitions}"
    command += " --peers FOLDER" if peers else ""
    rows = kernels.run(plan, record, command, functools.partial(click.echo, err=True))
    kernels_report.plot(rows, picture)
    page.write_text(kernels_report.page(read(record), record.name, picture.name), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        _print_kernels(rows)
    click.echo(f"Record: {record}\nPlot:   {picture}\nPage:   {page}", err=True)
    wrong = [row for row in rows if row.get("role") == "ours" and row["outcome"] in {"disagrees", "failed"}]
    if wrong:
        raise SystemExit(1)


def _print_kernels(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    from . import kernels_report

    console = _console()
    for table in kernels_report.tables(rows):
        shown = Table(*table.columns, title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown, markup=False)
        for remark in table.remarks:
            console.print(f"  {remark}", style="dim")


def _listing(cases: list[Case]) -> str:
    lines, setting = [], None
    for case in cases:
        if case.setting != setting:
            setting = case.setting
            lines.append(f"{setting}:")
        lines.append(f"  {case}")
    return "\n".join([*lines, f"{len(cases)} cases"])


def _json(results: list[Result], panels: list[Panel]) -> str:
    from .curves import growth

    measured = [{"case": result.case.to_dict(), **result.outcome.to_dict()} for result in results]
    return json.dumps({"results": measured, "growth": [row for panel in panels for row in growth(panel)]}, indent=1)


def _print(panels: list[Panel]) -> None:
    from . import report

    console = _console()
    for panel in panels:
        console.rule(f"[bold]{panel.case.setting}: {panel.step}", align="left")
        for table in report.tables(panel):
            console.print(table)
        for line in report.remarks(panel):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        for line in report.notes(panel):
            console.print(f"  {line}", markup=False, style="dim", soft_wrap=True)
        console.print()


def _console() -> Console:
    console = Console(highlight=False)
    # Piped into a file there is no width to fit, and a table cut to 80 columns is of no use.
    return console if console.is_terminal else Console(highlight=False, width=160)
