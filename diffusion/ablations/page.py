"""One self-contained page of an ablation: verdicts, the numbers behind them, pictures, samples, how to repeat it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from diffusion.ablations import figures
from diffusion.ablations.comparison import CellResults, Contrast, cells, effect, grouped, measures
from diffusion.ablations.result import Result
from diffusion.ablations.words import Sheet, cells_sheet, differences_sheet, measure_words, mixture, sentence
from temporal_zoo._support.files import written_whole

_STYLE = """
backend{font:16px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif;color:#1d2329;background:#fff;max-width:78rem;
margin:2rem auto;padding:0 1.25rem}h1{font-size:1.8rem;line-height:1.25;margin-bottom:.4rem}
h2{font-size:1.3rem;margin:2.5rem 0 .6rem;padding-top:.8rem;border-top:1px solid #d8dee4}
h3{font-size:1rem;margin:1.3rem 0 .3rem}.muted,td.muted,.reference td{color:#57606a}.wide{overflow-x:auto}
.verdict{border-left:4px solid #0b5cad;padding:.1rem 1rem;background:#f4f8fc;font-size:1.1rem}
.verdict p{margin:.6rem 0}img{max-width:100%;height:auto}pre{background:#f6f8fa;padding:.7rem;overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th{color:#57606a;border-bottom:2px solid #d8dee4;vertical-align:bottom;max-width:11rem}
th,td{padding:.28rem .8rem .28rem 0;text-align:left}td{white-space:nowrap;border-bottom:1px solid #eef1f4}
.failed td{color:#b00;white-space:normal}.lower td:last-child{color:#1a7f37}.higher td:last-child{color:#b35900}
.sheets{display:grid;grid-template-columns:repeat(auto-fill,minmax(22rem,1fr));gap:1.2rem}figure{margin:0}
figcaption{font-weight:600;font-size:.9rem}.sheets img{width:100%;image-rendering:pixelated}
summary{cursor:pointer;color:#0b5cad}"""


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
    backend = [
        f"<h1>{escape(question)}</h1>",
        f'<p class="muted">zoo ablate {escape(name)}, scale {escape(scale)}: {_counts(found, failures)}</p>',
        _verdict(found, contrasts),
        f"<p>{escape(told)}</p>" if (told := mixture(results)) else "",
        f"<h2>Cells</h2>{_table(cells_sheet(found, failures))}{_CELLS}",
        *_figures(pictures),
        _differences(found, contrasts, apart),
        _samples(folder, found),
        _again(command, settings or {}, environment),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(name)}</title>'
    opening = f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>'
    with written_whole(folder / "page.html") as file:
        file.write(f"{opening}{''.join(backend)}</body></html>\n".encode())
    return folder / "page.html"


_CELLS = """<p class="muted">± is the half-width of the 95 % interval of the mean over seeds (Student's t); a cell with
one seed has none. These intervals hold the luck of the seeds, which cells of one seed share: whether two cells differ
is told by their paired differences below, and not by whether these intervals overlap. Every measure is better when
lower. Parameters are those of the whole network; stored bytes are counted, not sampled; seconds are a median.</p>"""

_CAPTIONS = {
    "quality": """Quality against memory and time; lower is better. Bars are 95 % intervals of the mean over seeds;
against identity, of differences that are paired by seed, which alone tell cells apart. Stored for backward are the
bytes that one training step on one clip keeps for its backward pass.""",
    "curves": """Held-out loss while training, and below how far it is from that of identity at the same seed and
step: the mean over seeds, and a band from the lowest seed to the highest.""",
    "differences": """Differences of cells that differ in one thing, paired by seed, with 95 % intervals. Green: the
first is lower. Brown: the second is. Grey: the interval holds zero, or there is one seed and no interval.""",
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


def _verdict(found: Sequence[CellResults], contrasts: Sequence[Contrast]) -> str:
    """A paragraph for each measure and contrast, those of the first measure first."""
    told = [escape(sentence(effect(found, contrast, name))) for name in measures(found) for contrast in contrasts]
    if not told:
        told = ["Nothing was claimed before." if found else "There is no result yet."]
    return f'<div class="verdict">{"".join(f"<p>{line}</p>" for line in told)}</div>'


def _figures(pictures: Mapping[str, bytes]) -> Iterable[str]:
    for title, picture in pictures.items():
        image = _image(picture, _TITLES[title])
        yield f'<h2>{_TITLES[title]}</h2>{image}<p class="muted">{_CAPTIONS[title]}</p>'


def _differences(found: Sequence[CellResults], contrasts: Sequence[Contrast], apart: Sequence[str]) -> str:
    parts = []
    for name in measures(found):
        for title, gaps in grouped(found, contrasts, name, apart).items():
            parts.append(f"<h3>{escape(measure_words(name))}, {title}</h3>{_table(differences_sheet(gaps))}")
    if not parts:
        return "<p>No two cells have a seed in common.</p>"
    note = "Each interval holds with 95 %, by itself: of twenty true zeros one is expected to look like a difference."
    return f'<details open><summary>the same as numbers</summary>{"".join(parts)}<p class="muted">{note}</p></details>'


def _samples(folder: Path, found: Sequence[CellResults]) -> str:
    """The contact sheet of each cell's first seed that has one."""
    sheets = []
    for cell in found:
        trial = next((trial for _, trial in sorted(cell.trials.items()) if trial.contact_sheet), None)
        if trial is None or trial.contact_sheet is None:
            continue
        path = folder / trial.contact_sheet
        image = (
            _image(path.read_bytes(), f"samples of {trial.name}") if path.exists() else f"<p>{path.name} is gone.</p>"
        )
        sheets.append(f"<figure><figcaption>{escape(trial.name)}</figcaption>{image}</figure>")
    if not sheets:
        return ""
    return f'<h2>Samples</h2><p class="muted">Drawn from the same noise.</p><div class="sheets">{"".join(sheets)}</div>'


def _again(command: str, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    shown = {"settings": settings, "environment": environment}
    details = "".join(
        f"<details><summary>{title}</summary><pre>{escape(json.dumps(facts, indent=2, default=str))}</pre></details>"
        for title, facts in shown.items()
        if facts
    )
    return f"<h2>Again</h2><pre>{escape(command)}</pre>{details}"


def _table(sheet: Sheet) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in sheet.columns)
    rows = ""
    for row, kind in zip(sheet.rows, sheet.kinds, strict=True):
        *entries, last = map(escape, row)
        wide = f'<td colspan="{len(sheet.columns) - len(entries)}">{last}</td>'
        rows += f'<tr class="{kind}">{"".join(f"<td>{entry}</td>" for entry in entries)}{wide}</tr>'
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _image(picture: bytes, words: str) -> str:
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
