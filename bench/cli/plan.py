"""`zoo plan`: what a training step takes on a device that need not be here."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from bench.plan.devices import device as device_of
from bench.sweep.case import DTYPES, MOST_PLANNED, check_pixels, parse_layers, parse_lengths
from temporal_zoo._support import terminal
from temporal_zoo._support.files import write_text
from temporal_zoo.config import ConfigError

_CHECKPOINTING = ("none", "mixers", "blocks")


@click.command(
    short_help="Plans which mixers fit on a GPU, and at how many frames.",
    epilog="Exit code 1: nothing fits, or a measured peak differs from its plan by more than 10 %.",
)
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
@click.option("--backend", "backends", multiple=True, metavar="OP=BACKEND",
              help="Pins the backend of an op, also one that is not installed here; may be repeated.")  # fmt: skip
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
    from bench.plan import plot as plan_plot
    from bench.plan import tables as plan_tables
    from bench.plan.plan import Setup, plans_of
    from bench.plan.pool import planners

    same = {"clips": clips, "size": size, "preset": preset, "dtype": dtype, "backends": list(backends)}
    setups = [
        Setup.from_dict(same | {"mixer": mixer, "checkpointing": what}) for mixer in mixers for what in recomputed
    ]
    curves = []
    with terminal.progress() as progress, planners() as pool:
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
    from bench.plan import verify

    checks = verify.run(plans, record, functools.partial(click.echo, err=True))
    terminal.output(highlight=False).print(verify.table(checks))
    return any(check.wrong for check in checks)
