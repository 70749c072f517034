"""`zoo bench`: time and memory of mixers against the number of frames."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from bench.sweep.case import DIM, DTYPES, LEVELS, MODES, ROWS, Case, expand, parse_lengths
from temporal_zoo._support import terminal
from temporal_zoo._support.files import write_text
from temporal_zoo._support.options import FiniteNumber
from temporal_zoo._support.record import read

if TYPE_CHECKING:
    from bench.analysis.curves import Panel, Result
    from bench.sweep.runner import Sweep

# Unless the command or its suite says otherwise.  Two make an interval, and it shrinks fast up to five.
_REPETITIONS = 5
_WEEK_S = 7 * 24 * 3600
_SWEEPS = ("quick", "paper", "scaling")
# Exit code of a sweep that has done what it could in its minutes, and goes on when it is typed again.
UNFINISHED = 3


@click.command()
@click.option(
    "--layers", default="attn,bimamba", show_default=True, help="Mixers, separated by commas; options after colons."
)
@click.option("--lengths", default="16,64,256", show_default=True, help="Numbers of frames, separated by commas.")
@click.option("--level", type=click.Choice([*LEVELS, "both"]), default="both", show_default=True,
              help="A bare mixer, or the whole denoiser around it.")  # fmt: skip
@click.option("--mode", type=click.Choice([*MODES, "both", "all"]), default="both", show_default=True,
              help="A forward pass, a training step, both, or a sampling step of the denoiser too.")  # fmt: skip
@click.option("--rows", type=click.IntRange(min=1), help=f"Sequences at a time of a bare mixer.  [default: {ROWS}]")
@click.option("--total", type=click.IntRange(min=1), help="Instead of rows: rows x frames, the same at every length.")
@click.option("--dim", type=click.IntRange(min=1), help=f"Width of a bare mixer.  [default: {DIM}]")
@click.option("--device", help="cpu, cuda or cuda:N.  [default: cpu, or what the suite is meant for]")
@click.option("--dtype", help=f"Of {', '.join(DTYPES)}, separated by commas; the short ones by autocast.  "
              "[default: float32, or what the suite is meant for]")  # fmt: skip
@click.option("--backend", "backends", multiple=True, metavar="OP=BACKEND[,BACKEND]",
              help="Pins the backend of an op, or each of several in turn; may be repeated.")  # fmt: skip
@click.option("--suite", type=click.Choice([*_SWEEPS, "kernels"]),
              help="A ready-made sweep; or every backend of every op, checked and timed against peers.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/bench"), show_default=True,
              help="Folder of the record and the plots.")  # fmt: skip
@click.option("--limit", type=FiniteNumber(min=1, max=_WEEK_S), default=300.0, show_default=True,
              help="Seconds after which a case is ended.")  # fmt: skip
@click.option("--minutes", type=FiniteNumber(min=0, min_open=True),
              help="Stops when so many are over; the same command goes on from there.")  # fmt: skip
@click.option("--again", is_flag=True, help="Measures once more what OUT has a record of already.")
@click.option("--profile", is_flag=True, help="Also a trace of one step of every case, in OUT/traces.")
@click.option("--expect-device", metavar="NAME", help="Stops on a device whose name has no NAME in it, such as A100.")
@click.option("--peers", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Of the suite kernels: folder with sources of peers that cannot be installed.")  # fmt: skip
@click.option("--repetitions", type=click.IntRange(min=1, max=1000),
              help="Processes of every case, in turns; of the suite kernels, turns of everybody.  "
              "[default: 5; of quick 8, of paper and scaling 3]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Results as JSON instead of tables.")
@click.option("--dry-run", is_flag=True, help="Print the cases and stop.")
@click.pass_context
def bench(
    context: click.Context, suite: str | None, out: Path, limit: float, minutes: float | None, again: bool,
    profile: bool, expect_device: str | None, peers: Path | None, repetitions: int | None, as_json: bool,
    dry_run: bool, **axes: Any,
) -> None:  # fmt: skip
    """Measures how time and memory of mixers grow with the number of frames.

    Every case runs in several fresh processes, in turns; a crash, a hang and running out of memory are results.  A line
    for each goes to OUT/records.jsonl, which is where the same command goes on from when it was stopped; OUT/growth.png
    is drawn.
    `zoo report OUT` makes a page of them.  Exit code 1 when a case failed, 3 when minutes were over.

    `--suite kernels` leaves a record kernels.jsonl, a plot kernels.png and a page kernels.md in OUT.  It takes minutes
    and wants the machine for itself.
    """
    _refuse_options(context, suite)
    until = _until(minutes, limit)
    if suite == "kernels":
        _kernels(axes["lengths"], peers, repetitions, out, as_json, dry_run)
        return
    cases, usual = _cases(suite, axes)
    if dry_run:
        click.echo(json.dumps([case.to_dict() for case in cases], indent=1) if as_json else _listing(cases))
        return
    # All imports first: a package that is missing is better missed now than after the last case.
    from bench.analysis import curves, plot
    from bench.sweep.runner import Sweep, Terms

    record, picture = out / "records.jsonl", out / "growth.png"
    terms = Terms(repetitions=repetitions or usual, limit_s=limit, until=until, again=again,
                  traces=out / "traces" if profile else None)  # fmt: skip
    sweep = Sweep(cases, record, terms, expect_device)
    _run(sweep)
    panels = curves.panels(sweep.results)
    plot.save(panels, picture)
    if as_json:
        click.echo(_json(sweep.results, panels))
    else:
        print_panels(panels)
    click.echo(f"Record: {record}\nPlot:   {picture}", err=True)
    _exit(sweep)


def _until(minutes: float | None, limit: float) -> float | None:
    """When those minutes are over, by `time.monotonic`."""
    if minutes is None:
        return None
    from bench.sweep.subprocess import GRACE_S

    if 60 * minutes <= (least := limit + GRACE_S):
        raise click.UsageError(
            f"in {minutes:g} minutes no case can begin that may take {limit:g} s and {GRACE_S:g} s to start and end; "
            f"use --minutes {least / 60 + 1:.0f}, or a shorter --limit"
        )
    return time.monotonic() + 60 * minutes


def _cases(suite: str | None, axes: dict[str, Any]) -> tuple[list[Case], int]:
    """The cases that are asked for, and how often each is usually repeated."""
    if suite is None:
        asked = axes | {"device": axes["device"] or "cpu", "dtype": axes["dtype"] or "float32"}
        return expand(**asked), _REPETITIONS
    from bench.sweep.suites import SUITES

    make, device, dtype, repetitions = SUITES[suite]
    return make(axes["device"] or device, axes["dtype"] or dtype), repetitions


def _run(sweep: Sweep) -> None:
    """Runs what waits, says each case's first result to stderr and shows how far it is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from bench.sweep.runner import beginning, summary

    console, total = Console(stderr=True, highlight=False, soft_wrap=True), len(sweep.cases)
    click.echo(beginning(sweep), err=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("processes", total=len(sweep.waiting))
            told = 1
            for repetition, result in sweep.run():
                if repetition == 1:
                    place = sweep.cases.index(result.case) + 1
                    console.print(f"[{place}/{total}] {result.case}: {summary(result.outcome)}", markup=False)
                elif repetition > told:
                    console.print(f"Repetition {repetition} of {sweep.terms.repetitions}", markup=False)
                told = repetition
                bar.advance(task)
    except KeyboardInterrupt:
        click.echo("Stopped; the same command goes on from here.", err=True)
        raise
    if sweep.waiting:
        click.echo(
            f"Time is over with {len(sweep.waiting)} processes to go; the same command goes on from here.", err=True
        )


def _exit(sweep: Sweep) -> None:
    from bench.sweep.outcome import FAULTS

    if sweep.waiting:
        raise SystemExit(UNFINISHED)
    if any(result.outcome.status in FAULTS for result in sweep.results):
        raise SystemExit(1)


def _refuse_options(context: click.Context, suite: str | None) -> None:
    """Options that would have no effect are refused, not ignored."""
    of_kernels = {"peers"}
    taken = {"out", "as_json", "dry_run", "suite", "repetitions"}
    taken |= {"lengths"} | of_kernels if suite == "kernels" else {
        "device", "dtype", "limit", "minutes", "again", "profile", "expect_device"}  # fmt: skip
    given = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    }
    if suite and (strays := [text for name, text in given.items() if name not in taken]):
        why = "it measures ops, on the CPU" if suite == "kernels" else "its cases are fixed"
        raise click.UsageError(f"the suite {suite!r} takes no {', '.join(strays)}: {why}")
    if not suite and (strays := [text for name, text in given.items() if name in of_kernels]):
        raise click.UsageError(f"{', '.join(strays)} belongs to `--suite kernels`")


def _kernels(
    lengths: str, peers: Path | None, repetitions: int | None, out: Path, as_json: bool, dry_run: bool
) -> None:
    from bench.kernels import report, suite
    from bench.kernels.subjects import SUBJECTS

    options = suite.SuiteOptions(tuple(parse_lengths(lengths)), repetitions or _REPETITIONS, peers)
    if dry_run:
        for subject, frames, here in options.comparisons():
            known = ", ".join(each.name if each.run else f"{each.name} (missing)" for each in here)
            click.echo(f"{SUBJECTS[subject].title}, {frames} frames: {known}")
        return
    record, picture, page = (out / f"kernels.{ending}" for ending in ("jsonl", "png", "md"))
    # The digests in the record name the sources; where they lay on this machine helps nobody.
    command = f"zoo bench --suite kernels --lengths {lengths} --repetitions {options.repetitions}"
    command += " --peers FOLDER" if peers else ""
    rows = suite.run(options, record, command, lambda line: click.echo(line, err=True))
    report.plot(rows, picture)
    write_text(page, report.page(read(record), record.name, picture.name))
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

    from bench.kernels import report

    console = terminal.output(highlight=False)
    for table in report.tables(rows):
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
    from bench.analysis.curves import growth

    measured = [{"case": result.case.to_dict(), **result.outcome.to_dict()} for result in results]
    return json.dumps({"results": measured, "growth": [row for panel in panels for row in growth(panel)]}, indent=1)


def print_panels(panels: list[Panel]) -> None:
    """Tables, remarks and notes of each panel, and what the machine did meanwhile, on the terminal."""
    from bench.analysis import tables as report

    console = terminal.output(highlight=False)
    for panel in panels:
        console.rule(f"[bold]{panel.case.setting}: {panel.step}", align="left")
        for sheet in report.tables(panel):
            console.print(report.rich_table(sheet))
        for line in report.remarks(panel):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        for line in report.notes(panel):
            console.print(f"  {line}", markup=False, style="dim", soft_wrap=True)
        console.print()
    if said := report.drifted([result for panel in panels for curve in panel.curves for result in curve.results]):
        console.print(said)
