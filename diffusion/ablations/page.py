"""The page of an ablation: verdicts, the numbers behind them, pictures, samples, and the command that repeats it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion.ablations import figures
from diffusion.ablations.ablation import Contrast
from diffusion.ablations.comparison import CellResults, cells, effect, grouped, measures
from diffusion.ablations.result import Result
from diffusion.ablations.tables import TextTable, cells_table, differences_table
from diffusion.ablations.text import count_text, measure_label, verdict, version_warning
from temporal_zoo._support import html
from temporal_zoo._support.files import write_text, written_whole
from temporal_zoo._support.html import Html, element


def write_page(
    folder: Path,
    *,
    name: str,
    question: str,
    scale: str,
    command: str,
    environment: Mapping[str, Any],
    results: Sequence[Result],
    failures: Mapping[str, str],
    contrasts: Sequence[Contrast],
    settings: Mapping[str, Any] | None = None,
    apart: Sequence[str] = (),
) -> Path:
    """Writes page.html and its figures curves.png, quality.png and differences.png; returns the path of the page.

    Args:
        folder: of the ablation; contact sheets are relative to it.
        command: the command that writes this page.
        environment: result of `temporal_zoo._support.environment.environment()`.
        failures: name of a failed trial (`Trial.name`) -> reason.
        settings: plain values that the cells share, such as steps and the budget.
        apart: axes across which measures are not compared, such as frames.
    Raises: AblationError for two results of one trial; OSError when the folder cannot be written.
    """
    all_cells = cells(results)
    pictures = _pictures(all_cells, contrasts, apart) if all_cells else {}
    for title, picture in pictures.items():
        with written_whole(folder / f"{title}.png") as file:
            file.write(picture)
    warning = version_warning(results)
    parts = [
        element("h1", question),
        element("p", f"zoo ablate {name}, scale {scale}: {_counts(all_cells, failures)}", class_="muted"),
        _verdict(all_cells, contrasts),
        element("p", warning) if warning else "",
        element("h2", "Cells"),
        _table(cells_table(all_cells, failures), _CELLS),
        *_figures(pictures),
        _differences(all_cells, contrasts, apart),
        _samples(folder, all_cells),
        _command(command, settings or {}, environment),
    ]
    write_text(folder / "page.html", html.page(name, *parts))
    return folder / "page.html"


_CELLS = (
    "± is the half-width of the 95 % interval of the mean over seeds (Student's t); a cell with one seed has none. "
    "Cells of one seed share its data and noise, so overlapping intervals do not show that two cells are equal: read "
    "their paired differences below. Every measure is better when it is lower. Parameters are those of the whole "
    "network; stored bytes are counted, not sampled; seconds are a median."
)
_CAPTIONS = {
    "quality": "Quality against memory and time; lower is better. Bars are 95 % intervals of the mean over seeds. "
    "Against identity they are intervals of differences that are paired by seed; only these tell cells apart. Stored "
    "for backward: the bytes that one training step on one clip keeps for its backward pass.",
    "curves": "Held-out loss during training and, below it, its relative difference from the loss of identity at the "
    "same seed and step. Lines are means over seeds; bands reach from the lowest seed to the highest.",
    "differences": "Differences of cells that differ in one choice, paired by seed, with 95 % intervals. Green: the "
    "first is lower. Brown: the second is lower. Grey: the interval contains zero, or one seed gives no interval.",
}
_TITLES = {"quality": "Quality against cost", "curves": "Learning", "differences": "Paired differences"}


def _pictures(
    all_cells: Sequence[CellResults], contrasts: Sequence[Contrast], apart: Sequence[str]
) -> dict[str, bytes]:
    drawn = {
        "quality": figures.quality(all_cells),
        "curves": figures.curves(all_cells, apart),
        "differences": figures.forest(all_cells, contrasts, apart),
    }
    return {title: figures.png(figure) for title, figure in drawn.items()}


def _counts(all_cells: Sequence[CellResults], failures: Mapping[str, str]) -> str:
    trials = sum(len(cell.trials) for cell in all_cells)
    seeds = len({seed for cell in all_cells for seed in cell.trials})
    failed = f", {len(failures)} failed" if failures else ""
    numbers = (count_text(trials, "trial"), count_text(len(all_cells), "cell"), count_text(seeds, "seed"))
    return f"{numbers[0]} of {numbers[1]} with {numbers[2]}{failed}."


def _verdict(all_cells: Sequence[CellResults], contrasts: Sequence[Contrast]) -> Html:
    """A paragraph for each measure and contrast, those of the first measure first."""
    verdicts = [verdict(effect(all_cells, contrast, name)) for name in measures(all_cells) for contrast in contrasts]
    if not verdicts:
        verdicts = ["This ablation declares no contrast." if all_cells else "There is no result yet."]
    return element("div", *(element("p", sentence) for sentence in verdicts), class_="verdict")


def _figures(pictures: Mapping[str, bytes]) -> Iterable[Html]:
    for title, content in pictures.items():
        yield element("h2", _TITLES[title])
        yield html.figure(html.picture(content, _TITLES[title]), _CAPTIONS[title])


def _differences(all_cells: Sequence[CellResults], contrasts: Sequence[Contrast], apart: Sequence[str]) -> Html:
    parts = []
    for name in measures(all_cells):
        for title, gaps in grouped(all_cells, contrasts, name, apart).items():
            parts += [element("h3", f"{measure_label(name)}, {title}"), _table(differences_table(gaps))]
    if not parts:
        return element("p", "No two cells have a seed in common.")
    note = "Each interval has 95 % coverage by itself: of twenty true zeros, about one looks like a difference."
    return html.details("the same as numbers", *parts, element("p", note, class_="muted"), is_open=True)


def _samples(folder: Path, all_cells: Sequence[CellResults]) -> Html:
    """The contact sheet of each cell's first seed that has one."""
    sheets = []
    for cell in all_cells:
        trial = next((trial for _, trial in sorted(cell.trials.items()) if trial.contact_sheet), None)
        if trial is None or trial.contact_sheet is None:
            continue
        path, caption = folder / trial.contact_sheet, element("figcaption", trial.name)
        if path.exists():
            image = html.picture(path.read_bytes(), f"samples of {trial.name}")
        else:
            image = element("p", f"{path.name} is missing.")
        sheets.append(element("figure", caption, image))
    if not sheets:
        return Html()
    note = element("p", "Sampled from the same noise.", class_="muted")
    return html.joined([element("h2", "Samples"), note, element("div", *sheets, class_="sheets")])


def _command(command: str, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> Html:
    shown = {"settings": settings, "environment": environment}
    facts = [
        html.details(title, element("pre", json.dumps(values, indent=2, default=str)))
        for title, values in shown.items()
        if values
    ]
    return html.joined([element("h2", "Command"), element("pre", command), *facts])


def _table(content: TextTable, note: str = "") -> Html:
    return html.table(content.columns, content.rows, kinds=content.kinds, note=note)
