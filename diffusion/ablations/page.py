"""The page of an ablation: verdicts, the numbers behind them, pictures, samples, and the command that repeats it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion.ablations import figures
from diffusion.ablations.comparison import CellResults, Contrast, cells, effect, grouped, measures
from diffusion.ablations.result import Result
from diffusion.ablations.words import Sheet, cells_sheet, differences_sheet, measure_words, mixture, sentence
from temporal_zoo._support import html
from temporal_zoo._support.files import write_text, written_whole
from temporal_zoo._support.html import Html, element


def write(
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
    """Writes page.html, and its pictures curves.png, quality.png and differences.png; returns the page's path.

    Args:
        folder: of the ablation; contact sheets are relative to it.
        command: what makes this page again.
        environment: what `temporal_zoo._support.environment.environment()` returned.
        failures: trial (`Result.name` of the result that it lacks) -> why it failed.
        settings: what the cells have in common, such as steps and the budget; any plain values.
        apart: axes, such as frames, across which measures are not compared.
    Raises: AblationError for two results of one trial; DataError when the folder cannot be written.
    """
    found = cells(results)
    pictures = _pictures(found, contrasts, apart) if found else {}
    for title, picture in pictures.items():
        with written_whole(folder / f"{title}.png") as file:
            file.write(picture)
    warning = mixture(results)
    parts = [
        element("h1", question),
        element("p", f"zoo ablate {name}, scale {scale}: {_counts(found, failures)}", class_="muted"),
        _verdict(found, contrasts),
        element("p", warning) if warning else "",
        element("h2", "Cells"),
        _table(cells_sheet(found, failures), _CELLS),
        *_figures(pictures),
        _differences(found, contrasts, apart),
        _samples(folder, found),
        _again(command, settings or {}, environment),
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
    "curves": "Held-out loss during training and, below it, its distance to the loss of identity at the same seed and "
    "step. Lines are means over seeds; bands reach from the lowest seed to the highest.",
    "differences": "Differences of cells that differ in one choice, paired by seed, with 95 % intervals. Green: the "
    "first is lower. Brown: the second is lower. Grey: the interval contains zero, or one seed gives no interval.",
}
_TITLES = {"quality": "Quality against cost", "curves": "Learning", "differences": "Paired differences"}


def _pictures(found: Sequence[CellResults], contrasts: Sequence[Contrast], apart: Sequence[str]) -> dict[str, bytes]:
    drawn = {
        "quality": figures.quality(found),
        "curves": figures.curves(found, apart),
        "differences": figures.forest(found, contrasts, apart),
    }
    return {title: figures.png(figure) for title, figure in drawn.items()}


def _counts(found: Sequence[CellResults], failures: Mapping[str, str]) -> str:
    trials = sum(len(cell.trials) for cell in found)
    seeds = len({seed for cell in found for seed in cell.trials})
    failed = f", {len(failures)} failed" if failures else ""
    return f"{trials} trainings of {len(found)} cells at {seeds} seeds{failed}."


def _verdict(found: Sequence[CellResults], contrasts: Sequence[Contrast]) -> Html:
    """A paragraph for each measure and contrast, those of the first measure first."""
    verdicts = [sentence(effect(found, contrast, name)) for name in measures(found) for contrast in contrasts]
    if not verdicts:
        verdicts = ["This ablation declares no contrast." if found else "There is no result yet."]
    return element("div", *(element("p", verdict) for verdict in verdicts), class_="verdict")


def _figures(pictures: Mapping[str, bytes]) -> Iterable[Html]:
    for title, content in pictures.items():
        yield element("h2", _TITLES[title])
        yield html.figure(html.picture(content, _TITLES[title]), _CAPTIONS[title])


def _differences(found: Sequence[CellResults], contrasts: Sequence[Contrast], apart: Sequence[str]) -> Html:
    parts = []
    for name in measures(found):
        for title, gaps in grouped(found, contrasts, name, apart).items():
            parts += [element("h3", f"{measure_words(name)}, {title}"), _table(differences_sheet(gaps))]
    if not parts:
        return element("p", "No two cells have a seed in common.")
    note = "Each interval has 95 % coverage by itself: of twenty true zeros, about one looks like a difference."
    return html.details("the same as numbers", *parts, element("p", note, class_="muted"), is_open=True)


def _samples(folder: Path, found: Sequence[CellResults]) -> Html:
    """The contact sheet of each cell's first seed that has one."""
    sheets = []
    for cell in found:
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


def _again(command: str, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> Html:
    shown = {"settings": settings, "environment": environment}
    facts = [
        html.details(title, element("pre", json.dumps(values, indent=2, default=str)))
        for title, values in shown.items()
        if values
    ]
    return html.joined([element("h2", "Command"), element("pre", command), *facts])


def _table(sheet: Sheet, note: str = "") -> Html:
    return html.table(sheet.columns, sheet.rows, kinds=sheet.kinds, note=note)
