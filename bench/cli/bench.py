"""`zoo bench`: time and memory of mixers against the number of frames."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.sweep.case import DIM, DTYPES, LEVELS, MODES, ROWS, Case, expand, parse_lengths
from temporal_zoo._support import terminal
from temporal_zoo._support.files import write_text
from temporal_zoo._support.options import FiniteNumber
from temporal_zoo._support.record import read

if TYPE_CHECKING:
    from bench.analysis.curves import Panel
    from bench.sweep.results import CaseResult
    from bench.sweep.runner import Runner

# Default outside of suites.  An interval needs two repetitions, and it becomes much narrower up to five.
_REPETITIONS = 5
_WEEK_S = 7 * 24 * 3600
_SUITES = ("quick", "paper", "scaling")
# Exit code of a sweep that reached its time limit.
UNFINISHED = 3


@click.command(
    short_help="Measures time and memory of mixers at several lengths.",
    epilog="Exit code 1: a case failed, crashed, timed out or disagrees.  Exit code 3: the time limit was reached.",
)
@click.option(
    "--layers", default="attn,bimamba", show_default=True, help="Mixers, separated by commas; options after colons."
)
@click.option("--lengths", default="16,64,256", show_default=True, help="Numbers of frames, separated by commas.")
@click.option("--level", type=click.Choice([*LEVELS, "both"]), default="both", show_default=True,
              help="A bare mixer, a whole denoiser, or both.")  # fmt: skip
@click.option("--mode", type=click.Choice([*MODES, "both", "all"]), default="both", show_default=True,
              help="A forward pass, a training step, both, or all: also a sampling step of the denoiser.")  # fmt: skip
@click.option("--rows", type=click.IntRange(min=1), help=f"Independent sequences of a bare mixer.  [default: {ROWS}]")
@click.option("--total", type=click.IntRange(min=1), help="Rows x frames of a bare mixer, the same at every length.")
@click.option("--dim", type=click.IntRange(min=1), help=f"Width of a bare mixer.  [default: {DIM}]")
@click.option("--device", help="cpu, cuda or cuda:N.  [default: cpu, or the device of the suite]")
@click.option("--dtype", help=f"Precisions ({', '.join(DTYPES)}), separated by commas; 16-bit types use autocast.  "
              "[default: float32, or the precision of the suite]")  # fmt: skip
@click.option("--backend", "backends", multiple=True, metavar="OP=BACKEND[,BACKEND]",
              help="Pin the backend of an op; several backends give several cases.  Can be repeated.")  # fmt: skip
@click.option("--suite", type=click.Choice([*_SUITES, "kernels"]),
              help="A fixed list of cases; kernels: every backend of every op and other libraries.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/bench"), show_default=True,
              help="Folder for the record and the plots.")  # fmt: skip
@click.option("--limit", type=FiniteNumber(min=1, max=_WEEK_S), default=300.0, show_default=True,
              help="Time limit for one case in seconds.")  # fmt: skip
@click.option("--minutes", type=FiniteNumber(min=0, min_open=True),
              help="Time limit in minutes.  Run the same command again to resume.")  # fmt: skip
@click.option("--again", is_flag=True, help="Repeat measurements that the record in OUT already has.")
@click.option("--profile", is_flag=True, help="Write a profile of one step of every case to OUT/traces.")
@click.option("--expect-device", metavar="NAME", help="Stop unless the device's name contains NAME, such as A100.")
@click.option("--peers", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="For the suite kernels: folder with source files of peers that cannot be installed.")  # fmt: skip
@click.option("--repetitions", type=click.IntRange(min=1, max=1000),
              help="Processes for each case; for the suite kernels, rounds of each implementation.  "
              "[default: 5; quick 8, paper and scaling 3]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON instead of tables.")
@click.option("--dry-run", is_flag=True, help="Print the cases and stop.")
@click.pass_context
def bench(
    context: click.Context, suite: str | None, out: Path, limit: float, minutes: float | None, again: bool,
    profile: bool, expect_device: str | None, peers: Path | None, repetitions: int | None, as_json: bool,
    dry_run: bool, **axes: Any,
) -> None:  # fmt: skip
    """Measures how time and memory of mixers grow with the number of frames.

    Runs every case in several subprocesses; crashes, timeouts and out-of-memory become outcomes.  Appends a line for
    each process to OUT/records.jsonl and draws OUT/growth.png.  `zoo report OUT` writes an HTML page.  Run the same
    command again to resume a sweep.

    `--suite kernels` writes a record kernels.jsonl, a plot kernels.png and a page kernels.md to OUT.  It takes minutes;
    no other program should run at the same time.
    """
    _refuse_options(context, suite)
    until = _deadline(minutes, limit)
    if suite == "kernels":
        _kernels(axes["lengths"], peers, repetitions, out, as_json, dry_run)
        return
    cases, usual = _cases(suite, axes)
    if dry_run:
        click.echo(json.dumps([case.to_dict() for case in cases], indent=1) if as_json else _listing(cases))
        return
    # Imports all packages first: an error for a missing package should not come after the measurements.
    from bench.analysis import curves, plot
    from bench.sweep.results import RECORD
    from bench.sweep.runner import Runner, RunnerOptions

    record, picture = out / RECORD, out / "growth.png"
    options = RunnerOptions(repetitions=repetitions or usual, limit_s=limit, until=until, again=again,
                            traces=out / "traces" if profile else None)  # fmt: skip
    runner = Runner(cases, record, options, expect_device)
    _run(runner)
    if not runner.results:  # the time limit was reached before the first case
        _exit(runner)
    panels = curves.panels(runner.results)
    plot.save(panels, picture)
    if as_json:
        click.echo(_json(runner.results, panels))
    else:
        print_panels(panels)
    click.echo(f"Record: {record}\nPlot:   {picture}", err=True)
    _exit(runner)


def _deadline(minutes: float | None, limit: float) -> float | None:
    """The end of the time limit, as a value of `time.monotonic`."""
    if minutes is None:
        return None
    from bench.sweep.subprocess import GRACE_S

    if 60 * minutes <= (least := limit + GRACE_S):
        raise click.UsageError(
            f"no case can start in {minutes:g} minutes, because one may take {limit:g} s and {GRACE_S:g} s to start; "
            f"use --minutes {least / 60 + 1:.0f}, or a smaller --limit"
        )
    return time.monotonic() + 60 * minutes


def _cases(suite: str | None, axes: dict[str, Any]) -> tuple[list[Case], int]:
    """The cases of the options, and their default number of repetitions."""
    if suite is None:
        options = axes | {"device": axes["device"] or "cpu", "dtype": axes["dtype"] or "float32"}
        return expand(**options), _REPETITIONS
    from bench.sweep.suites import SUITES

    cases, device, dtype, repetitions = SUITES[suite]
    return cases(axes["device"] or device, axes["dtype"] or dtype), repetitions


def _run(runner: Runner) -> None:
    """Runs all waiting processes; prints each case's first result to standard error and shows the progress."""
    from bench.sweep.runner import announcement, summary

    console, total = terminal.messages(), len(runner.cases)
    click.echo(announcement(runner), err=True)
    try:
        with terminal.progress_bar(console, transient=True) as bar:
            task = bar.add_task("processes", total=len(runner.waiting))
            printed = 1
            for repetition, result in runner.run():
                if repetition == 1:
                    index = runner.cases.index(result.case) + 1
                    console.print(f"[{index}/{total}] {result.case}: {summary(result.outcome)}")
                elif repetition > printed:
                    console.print(f"Repetition {repetition} of {runner.options.repetitions}")
                printed = repetition
                bar.advance(task)
    except KeyboardInterrupt:
        click.echo("Stopped.  Run the same command again to resume.", err=True)
        raise
    if runner.waiting:
        click.echo(
            f"Reached the time limit; {len(runner.waiting)} processes are still to run.  Run the same command again to "
            "resume.", err=True,
        )  # fmt: skip


def _exit(runner: Runner) -> None:
    from bench.sweep.outcome import ERRORS

    if runner.waiting:
        raise SystemExit(UNFINISHED)
    if any(result.outcome.status in ERRORS for result in runner.results):
        raise SystemExit(1)


def _refuse_options(context: click.Context, suite: str | None) -> None:
    """Refuses options that would have no effect."""
    for_kernels = {"peers"}
    allowed = {"out", "as_json", "dry_run", "suite", "repetitions"}
    allowed |= {"lengths"} | for_kernels if suite == "kernels" else {
        "device", "dtype", "limit", "minutes", "again", "profile", "expect_device"}  # fmt: skip
    given = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    }
    if suite and (refused := [text for name, text in given.items() if name not in allowed]):
        why = "it measures ops, on the CPU" if suite == "kernels" else "its cases are fixed"
        raise click.UsageError(f"the suite {suite!r} does not accept {', '.join(refused)}: {why}")
    if suite != "kernels" and (refused := [text for name, text in given.items() if name in for_kernels]):
        raise click.UsageError(f"{', '.join(refused)} is for `--suite kernels` only")


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
    # The record names the sources by digest; their folder means nothing on other machines.
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
    if any(row.get("role") == "ours" and row["outcome"] in {"disagrees", "failed"} for row in rows):
        raise SystemExit(1)


def _print_kernels(rows: list[dict[str, Any]]) -> None:
    from bench.kernels import report

    console = terminal.output(highlight=False)
    for table in report.tables(rows):
        shown = terminal.table(*table.columns, title=table.title)
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


def _json(results: list[CaseResult], panels: list[Panel]) -> str:
    from bench.analysis.curves import growth

    measured = [{"case": result.case.to_dict(), **result.outcome.to_dict()} for result in results]
    return json.dumps({"results": measured, "growth": [row for panel in panels for row in growth(panel)]}, indent=1)


def print_panels(panels: list[Panel]) -> None:
    """Prints tables, remarks and notes of each panel, and changes of the machine's speed."""
    from bench.analysis import tables

    console = terminal.output(highlight=False)
    for panel in panels:
        console.rule(f"[bold]{panel.case.setting}: {panel.step}", align="left")
        for sheet in tables.tables(panel):
            console.print(tables.rich_table(sheet))
        for line in tables.remarks(panel):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        for line in tables.notes(panel):
            console.print(f"  {line}", markup=False, style="dim", soft_wrap=True)
        console.print()
    if sentence := tables.drift_sentence([r for panel in panels for curve in panel.curves for r in curve.results]):
        console.print(sentence)
