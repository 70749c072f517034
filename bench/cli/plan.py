"""`zoo plan`: the memory of a training step on a device that this machine does not need to have."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.plan import devices
from bench.sweep.case import DTYPES, MOST_PLANNED, check_pixels, parse_layers, parse_lengths
from temporal_zoo._support import terminal
from temporal_zoo._support.files import write_text
from temporal_zoo._support.options import as_json
from temporal_zoo.config import ConfigError

if TYPE_CHECKING:
    from bench.plan.plan import Plan


@click.command(
    short_help="Plans which mixers fit on a GPU, and at how many frames.",
    epilog="Exit code 1: no plan fits, or the error of a planned peak is above 10 %.",
)
@click.option("--gpu", default="a100-40gb", show_default=True,
              help="Name such as a100-80gb or h200, memory such as 24GiB, or cpu:16GiB.")  # fmt: skip
@click.option("--layers", default="attn,flash,bimamba", show_default=True, help="Mixers, separated by commas.")
@click.option("--lengths", default="64,256,1024", show_default=True, help="Numbers of frames, separated by commas.")
@click.option("--checkpointing", default="none,mixers,blocks", show_default=True,
              help="Parts to recompute in the backward pass: none, mixers, blocks; separated by commas.")  # fmt: skip
@click.option("--clips", type=click.IntRange(min=1), default=1, show_default=True, help="Clips in a batch.")
@click.option(
    "--size", type=click.IntRange(min=1), default=32, show_default=True, help="Height and width of a frame in pixels."
)
@click.option(
    "--preset", default="paper-57.5M", show_default=True, help="Preset of the denoiser; --layers replaces its mixer."
)
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True,
              help="Precision of the network; short dtypes run under autocast.")  # fmt: skip
@click.option("--backend", "backends", multiple=True, metavar="OP=BACKEND",
              help="Backend of an op, also one that is not installed on this machine; repeatable.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/plan"), show_default=True,
              help="Folder for plan.json and plan.png.")  # fmt: skip
@click.option("--verify", is_flag=True, help="Also measure every plan that fits; needs a GPU.")
@as_json
def plan(
    gpu: str, layers: str, lengths: str, checkpointing: str, clips: int, size: int, preset: str, dtype: str,
    backends: tuple[str, ...], out: Path, verify: bool, as_json: bool,
) -> None:  # fmt: skip
    """Plans the memory of training: which mixers fit on a device, at how many frames, with which checkpointing.

    The command counts the bytes of a training step of the whole denoiser, with AdamW and a moving average of the
    weights, on the meta device; it needs no GPU.
    """
    mixers, frames, target = parse_layers(layers), parse_lengths(lengths, most=MOST_PLANNED), devices.device(gpu)
    check_pixels(clips, size)
    from bench.plan import plot, tables
    from bench.plan.plan import CHECKPOINTING, Setup, plans_of
    from bench.plan.pool import planners

    recomputed = list(dict.fromkeys(part.strip() for part in checkpointing.split(",")))
    if unknown := [part for part in recomputed if part not in CHECKPOINTING]:
        raise ConfigError(f"unknown checkpointing {unknown[0]!r}; choose from {', '.join(CHECKPOINTING)}")
    same = {"clips": clips, "size": size, "preset": preset, "dtype": dtype, "backends": list(backends)}
    setups = [
        Setup.from_dict(same | {"mixer": mixer, "checkpointing": what}) for mixer in mixers for what in recomputed
    ]
    curves = []
    with terminal.progress() as progress, planners() as pool:
        task = progress.add_task("", total=len(setups))
        for setup, plans in zip(setups, pool.map(functools.partial(plans_of, target, frames), setups), strict=True):
            progress.update(task, description=f"{setup.mixer}, checkpointing {setup.checkpointing}", advance=1)
            curves.append(tables.PlanCurve(setup, *plans))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "plan.json", tables.as_json(curves))
    plot.save(curves, target, out / "plan.png")
    if as_json:
        click.echo(tables.as_json(curves))
    else:
        console = terminal.output(highlight=False)
        for part in tables.sections(curves, target):
            console.print(part)
    click.echo(f"Plans: {out / 'plan.json'}\nPlot:  {out / 'plan.png'}", err=True)
    fits = [each for curve in curves for each in curve.plans if each.fit != "no"]
    wrong = _any_wrong(fits, out / "verified.jsonl") if verify else False
    if wrong or not fits:
        raise SystemExit(1)


def _any_wrong(plans: list[Plan], record: Path) -> bool:
    """Measures the plans and prints a table; whether any plan is wrong."""
    from bench.plan import verify

    checks = verify.run(plans, record, functools.partial(click.echo, err=True))
    terminal.output(highlight=False).print(verify.table(checks))
    return any(check.wrong for check in checks)
