"""`zoo evaluate`: computes FVD and other measures of generated clips."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
from rich.console import Console
from rich.progress import TaskID

from diffusion.data import DataConfig, Split, open_source
from diffusion.evaluation.protocol import PRESETS, EvaluationProtocol, protocol
from temporal_zoo._support import terminal

if TYPE_CHECKING:
    from diffusion.evaluation.clips import ClipSet
    from diffusion.evaluation.extractors import Extractor
    from diffusion.evaluation.features import Progress
    from diffusion.evaluation.samples import Samples


def _show(steps: Iterator[Progress], console: Console) -> None:
    """Runs the steps; shows a bar for each piece of work, or prints lines if the console is not a terminal."""
    last_line = 0.0
    with terminal.progress_bar(console) as progress:
        tasks: dict[str, TaskID] = {}
        for step in steps:
            is_new, now = step.work not in tasks, time.monotonic()
            if is_new:
                tasks[step.work] = progress.add_task(step.work, total=step.total)
            progress.update(tasks[step.work], completed=step.done, total=step.total)
            if not console.is_terminal and (is_new or now - last_line > terminal.LOG_SECONDS):
                console.print(f"{step.work}: {step.done} of {step.total}")
                last_line = now


@click.command(short_help="Compares generated clips with real ones: FVD and others.")
@click.argument("fake", metavar="RUN_OR_FOLDER")
@click.option("--real", help="Real videos: a file, a folder or a built-in source.  [default: the data of the run]")
@click.option(
    "--protocol",
    "preset",
    default="standard",
    show_default=True,
    help=f"Settings of the measures: {', '.join(PRESETS)}.",
)
@click.option(
    "--count",
    type=click.IntRange(min=2),
    help="Clips per side, several of a video if necessary.  [default: one of each, at most the protocol's number]",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    help="Frames of a clip.  [default: all of a generated clip]",
)
@click.option(
    "--split",
    type=click.Choice(get_args(Split)),
    help="Split of the real videos.  [default: the protocol's; all, if the source has no splits]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of crops, samples, intervals."
)
@click.option(
    "--extractor",
    "network",
    default="i3d",
    show_default=True,
    help="Feature network; an unknown name lists all.",
)
@click.option("--weights", "chosen", type=click.Path(path_type=Path), help="File with the weights of the extractor.")
@click.option(
    "--sampler",
    type=click.Choice(["ancestral", "ddim"]),
    default="ancestral",
    show_default=True,
    help="Sampler, for a run.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Sampler steps.  [default: 64, or all noise levels if fewer]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the results.  [default: RUN/evaluation, or evaluation]",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--meta-test",
    is_flag=True,
    help="Test the measures: compare the real videos in RUN_OR_FOLDER with others that are damaged in known ways.",
)
def evaluate(
    fake, real, preset, count, frames, split, seed, network, chosen, sampler, steps, out, device, meta_test
) -> None:
    """Compares generated clips with real ones by FVD and other measures.

    RUN_OR_FOLDER is the folder of a run, a checkpoint or builtin:doom, from which the command first draws clips; or a
    folder of videos, which needs no model.  Writes a picture and a record.  Run the command again to resume.
    """
    settings = protocol(preset)

    from diffusion.device import open_device
    from diffusion.evaluation.extractors import open_extractor
    from diffusion.evaluation.features import require_frames
    from diffusion.evaluation.report import remarks, save_plot, table, title
    from diffusion.evaluation.suite import Evaluation
    from temporal_zoo._support.environment import environment
    from temporal_zoo._support.packages import need
    from temporal_zoo._support.record import Session

    need("matplotlib", "drawing an evaluation")
    console = terminal.messages()
    torch_device = open_device(device)
    extractor = open_extractor(network, chosen, torch_device)
    if meta_test:
        _meta_test(fake, settings, extractor, count, frames, split or "all", seed, out or Path("evaluation"), console)
        return
    folder = out or (Path(fake) / "evaluation" if _is_run(fake) and Path(fake).is_dir() else Path("evaluation"))
    if _is_run(fake):
        from diffusion.evaluation.samples import Samples

        samples = Samples(
            fake, folder, count or settings.count, settings, torch_device,
            sampler=sampler, num_steps=steps, frames=frames, seed=seed,
        )  # fmt: skip
        require_frames(fake, samples.frames, extractor)
        drawn = {"sampling": samples.how, "model_sha256": samples.weights_sha256}
        data = samples.config.data if real is None else samples.config.data.replace(source=real)
        split = split or settings.reference
        # Opens the real clips first, because drawing samples may take hours.
        reals, second = _real(data, split, count, settings.count, samples, seed, console)
        _show(samples.draw(), console)
        fakes: ClipSet = samples.clips()
    else:
        if real is None:
            raise click.UsageError("a folder of videos needs --real: a file, a folder, builtin:mazes or builtin:doom")
        fakes, drawn = _folder(fake, count, frames, settings.count, seed), {}
        split = split or (settings.reference if open_source(real).has_splits else "all")
        reals, second = _real(DataConfig(source=real), split, count, settings.count, fakes, seed, console)
    settings = settings.replace(reference=split)
    evaluation = Evaluation(reals, fakes, second, extractor=extractor, protocol=settings, seed=seed)
    session = Session(folder / "evaluation.jsonl", environment())
    _show(evaluation.work(), console)
    session.write("evaluation", evaluation.facts() | drawn | {"rows": [row.to_dict() for row in evaluation.rows]})
    save_plot(folder / "evaluation.png", evaluation)
    click.echo("\n".join([title(evaluation), *remarks(evaluation)]))
    terminal.output().print(table(evaluation))
    click.echo(f"{folder}/evaluation.png, {folder}/evaluation.jsonl")


def _meta_test(
    source: str,
    settings: EvaluationProtocol,
    extractor: Extractor,
    count: int | None,
    frames: int | None,
    split: Split,
    seed: int,
    folder: Path,
    console: Console,
) -> None:
    """Compares half of the clips, damaged, with the other half."""
    from diffusion.evaluation.clips import open_set
    from diffusion.evaluation.metatest import PICTURE, MetaTest, page, save_plot
    from diffusion.evaluation.report import remarks, title
    from temporal_zoo._support.environment import environment
    from temporal_zoo._support.files import written_whole
    from temporal_zoo._support.record import Session

    cut = partial(open_set, DataConfig(source=source), split=split, frames=frames, size=None, seed=seed)
    count = count or min(cut(count=None).count // 2, settings.count)
    settings = settings.replace(reference=split)
    test = MetaTest(cut(count=count), cut(count=count, first=count), extractor=extractor, protocol=settings, seed=seed)
    session = Session(folder / "evaluation.jsonl", environment())
    _show(test.work(), console)
    rows = {name: [row.to_dict() for row in measured.values()] for name, measured in test.rows.items()}
    session.write("meta-test", test.clean.facts() | {"rows": rows})
    command = shlex.join(["zoo", *sys.argv[1:]])
    text = page(test, command, title(test.clean), remarks(test.clean))
    with written_whole(folder / "metatest.md") as file:
        file.write(text.encode())
    save_plot(folder / PICTURE, test.rows)
    click.echo(text)
    click.echo(f"{folder}/metatest.md, {folder}/{PICTURE}, {folder}/evaluation.jsonl")


def _is_run(name: str) -> bool:
    path = Path(name)
    return name.startswith("builtin:") or path.suffix == ".pt" or (path / "checkpoint.pt").exists()


def _folder(name: str, count: int | None, frames: int | None, most: int, seed: int) -> ClipSet:
    """The clips of a folder of videos: one of each video, at most `count`."""
    from diffusion.evaluation.clips import open_set

    cut = partial(open_set, DataConfig(source=name), split="all", frames=frames, size=None, seed=seed)
    clips, wanted = cut(count=None), count or most
    return clips if clips.count <= wanted else cut(count=wanted)


def _real(
    data: DataConfig, split: Split, count: int | None, most: int, fakes: ClipSet | Samples, seed: int, console: Console
) -> tuple[ClipSet, ClipSet | None]:
    """The real clips, and a second set with the number of fake clips, or None if the source has too few."""
    from diffusion.evaluation import EvaluationError
    from diffusion.evaluation.clips import open_set

    cut = partial(open_set, data, split=split, frames=fakes.frames, size=fakes.size, seed=seed)
    reals = cut(count=count)
    if reals.count > most and count is None:
        reals = cut(count=most)
    try:
        return reals, cut(count=fakes.count, first=reals.count)
    except EvaluationError as error:
        console.print(f"no floor: {error}")
        return reals, None
