"""`zoo plan` and `zoo reproduce`: what a training step takes, before anybody rents the hardware."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from temporal_zoo import terminal
from temporal_zoo.config import ConfigError
from temporal_zoo.files import write_text

from .case import DTYPES, MOST_PLANNED, check_pixels, parse_layers, parse_lengths
from .devices import device as device_of

_CHECKPOINTING = ("none", "mixers", "blocks")
_PAPERS = ("2403.07711",)


@click.command()
@click.option("--gpu", default="a100-40gb", show_default=True,
              help="A name such as a100-80gb or h200, bytes such as 24GiB, or cpu:16GiB.")  # fmt: skip
@click.option("--layers", default="attn,flash,bimamba", show_default=True, help="Mixers, separated by commas.")
@click.option("--lengths", default="64,256,1024", show_default=True, help="Numbers of frames, separated by commas.")
@click.option("--checkpointing", default="none,mixers,blocks", show_default=True,
              help="What is computed again in backward, separated by commas.")  # fmt: skip
@click.option("--clips", type=click.IntRange(min=1), default=1, show_default=True, help="Clips of a batch.")
@click.option("--size", type=click.IntRange(min=1), default=32, show_default=True, help="Pixels of a frame's side.")
@click.option("--preset", default="paper-57.5M", show_default=True, help="The denoiser, whose mixer is replaced.")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True,
              help="Precision of the network; the short ones by autocast.")  # fmt: skip
@click.option("--backend", "backends", multiple=True, metavar="OP=BODY",
              help="Pins the body of an op, also one that is not installed here; may be repeated.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/plan"), show_default=True,
              help="Folder of plan.json and plan.png.")  # fmt: skip
@click.option("--verify", is_flag=True, help="On a GPU: also measure every planned point that fits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def plan(
    gpu: str, layers: str, lengths: str, checkpointing: str, clips: int, size: int, preset: str, dtype: str,
    backends: tuple[str, ...], out: Path, verify: bool, as_json: bool,
) -> None:  # fmt: skip
    """Says which mixers can be trained on a device, up to how many frames, and with which checkpointing.

    A training step of the whole denoiser, with AdamW and a moving average, is counted on the meta device, which needs
    no GPU.  Exit code 1 when nothing that was asked fits, or a measured peak is more than 10 % from its plan.
    """
    mixers, frames, target = parse_layers(layers), parse_lengths(lengths, most=MOST_PLANNED), device_of(gpu)
    recomputed = list(dict.fromkeys(part.strip() for part in checkpointing.split(",")))
    if strange := [part for part in recomputed if part not in _CHECKPOINTING]:
        raise ConfigError(f"nothing can be checkpointed as {strange[0]!r}; there are {', '.join(_CHECKPOINTING)}")
    check_pixels(clips, size)
    from . import plan_plot, plan_tables
    from .plan import Setup, plans_of
    from .pool import planners

    same = {"clips": clips, "size": size, "preset": preset, "dtype": dtype, "backends": list(backends)}
    setups = [
        Setup.from_dict(same | {"mixer": mixer, "checkpointing": what}) for mixer in mixers for what in recomputed
    ]
    curves = []
    with _progress() as progress, planners() as pool:
        task = progress.add_task("", total=len(setups))
        for setup, found in zip(setups, pool.map(functools.partial(plans_of, target, frames), setups), strict=True):
            progress.update(task, description=f"{setup.mixer}, checkpointing {setup.checkpointing}", advance=1)
            curves.append(plan_tables.Curve(setup, *found))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "plan.json", plan_tables.as_json(curves))
    plan_plot.save(curves, target, out / "plan.png")
    if as_json:
        click.echo(plan_tables.as_json(curves))
    else:
        console = terminal.output(highlight=False)
        for part in plan_tables.told(curves, target):
            console.print(part)
    click.echo(f"Plans: {out / 'plan.json'}\nPlot:  {out / 'plan.png'}", err=True)
    fits = [each for curve in curves for each in curve.plans if each.fit != "no"]
    wrong = _verify(fits, out / "verified.jsonl") if verify else False
    if wrong or not fits:
        raise SystemExit(1)


def _verify(plans: list, record: Path) -> bool:
    from . import verify

    checks = verify.run(plans, record, functools.partial(click.echo, err=True))
    terminal.output(highlight=False).print(verify.table(checks))
    return any(check.wrong for check in checks)


@click.command()
@click.argument("paper", type=click.Choice(_PAPERS))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/reproduce"),
              show_default=True, help="Folder of the page, the plot and the numbers.")  # fmt: skip
@click.option("--measure", is_flag=True, help="On a GPU: also measure the control that the paper lacks.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def reproduce(paper: str, out: Path, measure: bool, as_json: bool) -> None:
    """Puts a paper's sizes and memory next to what is counted here; needs no GPU.

    Leaves reproduce.md, reproduce.png and reproduce.json in OUT.  With `--measure`, attention that holds its weights,
    fused attention, checkpointed attention, and Mamba in one and both directions run as they are, and what they took is
    appended to OUT/reproduce.jsonl; a page that is made later shows it.
    """
    from . import control, reproduce_page
    from .reproduce import reproduce as count

    with _progress() as progress:
        task = progress.add_task("", total=None)
        found = count(lambda what: progress.update(task, description=what))
    out.mkdir(parents=True, exist_ok=True)
    record = out / "reproduce.jsonl"
    if measure:
        control.run(record, functools.partial(click.echo, err=True))
    measured = control.read_all(record)
    page = reproduce_page.page(found, measured)
    reproduce_page.plot(found, out / "reproduce.png")
    write_text(out / "reproduce.md", page)
    write_text(out / "reproduce.json", json.dumps(found.to_dict(), indent=1) + "\n")
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else page)
    click.echo(f"Page: {out / 'reproduce.md'}", err=True)
    if not all(row.agrees for row in found.sizes):
        raise SystemExit(1)


def _progress() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)
