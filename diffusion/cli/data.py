"""`zoo data`: inspects videos, decodes them for training, shows the clips that training sees."""

from __future__ import annotations

import os
import shlex
import statistics
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
from rich.markup import escape

from diffusion.data import DataConfig, DataError, Split, open_clips
from diffusion.data.builtin import files_of
from diffusion.data.names import printable
from temporal_zoo._support import terminal, units

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from diffusion.data.inspect import Findings

SHOWN = 10  # number of bad files and notes to print; bad_files.txt has all of them


@click.group()
def data() -> None:
    """Inspects videos, decodes them for training, shows clips."""


@data.command()
@click.argument("source", metavar="PATH")
@click.option("--size", default=32, show_default=True, help="Height and width of the training clips in pixels.")
def inspect(source: str, size: int) -> None:
    """Reports the videos in PATH and the clips that can be cut from them.

    Decodes up to 50 files, spread over the source, to their end, because headers can be wrong.
    """
    from diffusion.data.inspect import SAMPLE, inspect
    from diffusion.data.videos import several_rates

    DataConfig(source=source, size=size)  # checks the size
    path = files_of(source)
    with _progress() as progress:
        task = progress.add_task("decoding", total=None)
        for findings in inspect(path, size=size):
            progress.update(task, completed=findings.num_decoded, total=min(SAMPLE, findings.num_files))
    console = terminal.output()
    console.print(_table(path, findings, size))
    _list(console, findings.bad, "cannot be decoded and are left out")
    _list(console, findings.notes, "are kept, with a note")
    if warning := several_rates(findings.rates.elements()):
        console.print(warning, highlight=False, soft_wrap=True)
    if not findings.lengths:
        raise DataError(f"nothing in {printable(path)} can be decoded; the first: {'; '.join(findings.bad[:3])}")
    console.print("Train on it:")
    click.echo(f"  zoo train --set {shlex.quote(printable(f'data.source={source}'))} --set data.size={size}")


@data.command()
@click.argument("source", metavar="PATH")
@click.option("--size", default=32, show_default=True, help="Height and width of the decoded videos in pixels.")
@click.option("--out", type=click.Path(path_type=Path), help="Cache folder [default: the one that `zoo train` reads].")
@click.option("--strict", is_flag=True, help="Stop at the first file that cannot be decoded or loses frames.")
def build(source: str, size: int, out: Path | None, strict: bool) -> None:
    """Decodes the videos in PATH for training at this size.

    If the command is interrupted, run it again to resume.  It leaves out files that cannot be decoded and lists them in
    bad_files.txt, together with files that lost frames or look different in a viewer.
    """
    from diffusion.data.build import build, read_index, read_meta
    from diffusion.data.cache import default_folder
    from diffusion.data.videos import several_rates

    config = DataConfig(source=source, size=size)
    path = files_of(source)
    folder = out or default_folder(path, config)
    frames, bad, notes = 0, [], []
    with _progress() as progress:
        task = progress.add_task("decoding", total=None)
        for step in build(path, folder, size=size, strict=strict):
            frames += step.frames
            bad += [step.bad] if step.bad else []
            notes += step.notes
            progress.update(task, description=f"{frames:,} frames", completed=step.done, total=step.total)
    console = terminal.messages()
    _list(console, bad, "cannot be decoded and are left out")
    _list(console, notes, "are kept, with a note")
    if warning := several_rates(video.fps for video in read_index(folder)[1]):
        console.print(warning, highlight=False, soft_wrap=True)
    if others := _others(Counter(read_meta(folder)["others"])):
        console.print(f"not videos: {others}", markup=False, highlight=False, soft_wrap=True)
    click.echo(os.fsencode(folder))  # as bytes, because a name need not be UTF-8


@data.command()
@click.argument("source")
@click.option("--frames", default=16, show_default=True, help="Number of frames of a clip.")
@click.option("--stride", default=1, show_default=True, help="Video frames from one frame of a clip to the next.")
@click.option("--size", default=32, show_default=True, help="Height and width of the clips in pixels.")
@click.option("--count", default=8, show_default=True, type=click.IntRange(1), help="Number of clips to show.")
@click.option("--split", default="train", show_default=True, type=click.Choice(get_args(Split)), help="Split.")
@click.option(
    "--out",
    default=Path("preview"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="File stem.",
)
def preview(source: str, frames: int, stride: int, size: int, count: int, split: Split, out: Path) -> None:
    """Writes a picture and a gif of clips as training sees them.

    SOURCE is a path or a built-in source: builtin:mazes or builtin:doom.
    """
    config = DataConfig(source=source, frames=frames, stride=stride, size=size)
    clips = open_clips(config, split=split).fixed(count)
    from diffusion.sampling.video import save_gif, save_sheet

    scale = max(1, 128 // size)
    sheet, moving = out.with_name(f"{out.name}.png"), out.with_name(f"{out.name}.gif")
    save_sheet(sheet, clips, scale=max(1, scale // 2))
    save_gif(moving, clips, scale=scale)
    click.echo(sheet)
    click.echo(moving)


def _table(path: Path, findings: Findings, size: int) -> Table:
    about = "" if findings.complete else f" of the {findings.num_decoded} files decoded"
    table = terminal.table("", escape(printable(path)))
    table.add_row("layout", escape(findings.layout))
    table.add_row("files", f"{findings.num_files:,}, {units.size(findings.num_bytes)}")
    if others := _others(findings.others):
        table.add_row("not videos", others)
    if not findings.lengths:
        return table
    table.add_row(f"videos{about}", f"{len(findings.lengths):,}")
    shortest, longest = min(findings.lengths), max(findings.lengths)
    table.add_row("frames", f"{shortest:,} to {longest:,}, median {statistics.median(findings.lengths):,.0f}")
    rates = ", ".join(f"{fps:g}" for fps, _ in findings.rates.most_common(3))
    table.add_row("frames per second", rates)
    sizes = (f"{h} x {w}, {c} channel{'s' * (c > 1)} ({n})" for (h, w, c), n in findings.sizes.most_common(3))
    table.add_row("height x width", "; ".join(sizes))
    splits = findings.split_counts(DataConfig().test_share)
    table.add_row("splits", ", ".join(f"{count:,} {split}" for split, count in splits.items()))
    usable = (f"{findings.usable(frames):,} for {frames} frames" for frames in (16, 64, 256))
    table.add_row("long enough", ", ".join(usable))
    table.add_row(f"decoded at {size} x {size}", f"about {units.size(findings.cache_bytes(size))}")
    if findings.seconds:
        seconds = findings.seconds * findings.num_files / findings.num_decoded
        table.add_row("time to decode", f"about {max(1, round(seconds)):,} s")
    return table


def _list(console: Console, lines: list[str], what: str) -> None:
    if not lines:
        return
    console.print(f"{len(lines)} {what}:")
    for line in lines[:SHOWN]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if len(lines) > SHOWN:
        console.print(f"  and {len(lines) - SHOWN} more")


def _others(others: Counter[str]) -> str | None:
    """Number of files that are not videos, with the most frequent extensions; None if all are videos."""
    if not others:
        return None
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common(5))
    return f"{others.total():,} ({kinds}{' and others' if len(others) > 5 else ''})"


def _progress() -> Progress:
    return terminal.progress_bar(terminal.messages(), transient=True)
