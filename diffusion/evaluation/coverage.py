"""Simulates how often the interval of the distance at infinitely many clips contains the true distance.

    python -m diffusion.evaluation.coverage FOLDER

Features are drawn from two distributions of 400 features whose distance is known.  Spectra of the covariance, k from 1:

* i3d: k^-0.7 exp(-k / 40), which fits the logits of I3D for 320 clips of 80 recorded walks (16 frames of 32 x 32);
* heavy: k^-1.2, a tail that a few clips do not show;
* short: exp(-k / 4).

The second distribution is the same; or its mean is shifted; or its mean is shifted and its axes are rotated; or its
mean is shifted and its small variances are smaller.  The module writes a page and a record of all cases.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from diffusion.evaluation.frechet import frechet
from diffusion.evaluation.infinite import METHOD, at_infinity
from diffusion.evaluation.uncertainty import resampled
from temporal_zoo._support.environment import environment
from temporal_zoo._support.files import written_whole
from temporal_zoo._support.record import Session

WIDTH = 400
TRACE = 1000.0
REPEATS = {32: 40, 64: 40, 128: 40, 256: 20, 512: 20}  # number of videos on each side -> repeats
NUMBER = np.arange(1, WIDTH + 1)
SPECTRA = {
    "i3d": NUMBER**-0.7 * np.exp(-NUMBER / 40),
    "heavy": NUMBER**-1.2,
    "short": np.exp(-NUMBER / 4),
}


@dataclass(frozen=True)
class Pair:
    """Two distributions.

    spectrum: of the covariance.
    pair: how the second distribution differs from the first.
    freedom: degrees of freedom of Student's t, or 0 for Gaussians.
    clips: number of clips of one video, which share half of their variance.
    """

    spectrum: str
    pair: str
    freedom: int = 0
    clips: int = 1

    def __str__(self) -> str:
        # This text seeds the draws of a pair, so that a new wording changes the results.
        tail = f", Student's t with {self.freedom} degrees of freedom" if self.freedom else ""
        return f"{self.spectrum}, {self.pair}{tail}{f', {self.clips} clips a video' if self.clips > 1 else ''}"


CASES = [
    *(Pair("i3d", pair) for pair in ("same", "shifted", "turned", "narrower")),
    *(Pair("heavy", pair) for pair in ("same", "turned")),
    Pair("short", "turned"),
    Pair("i3d", "turned", freedom=5),
    Pair("i3d", "turned", clips=4),
]


class Population:
    """The two distributions of a pair, and the distance between them."""

    def __init__(self, case: Pair) -> None:
        self.case = case
        spectrum = SPECTRA[case.spectrum]
        spread = np.diag(np.sqrt(spectrum * TRACE / spectrum.sum()))
        self.mean = np.zeros(WIDTH)
        other = spread
        if case.pair != "same":
            self.mean[:4] = 5
        if case.pair == "turned":
            other = _turn() @ spread
        if case.pair == "narrower":
            other = spread * np.linspace(1.1, 0.4, WIDTH)
        self.factors = (spread, other)
        nuclear = np.linalg.svd(spread.T @ other, compute_uv=False).sum()
        self.truth = float(self.mean @ self.mean + np.square(spread).sum() + np.square(other).sum() - 2 * nuclear)

    def draw(self, side: int, videos: int, rng: np.random.Generator) -> np.ndarray:
        """Draws (videos x clips, 400) features; the clips of a video are adjacent rows."""
        clips = self.case.clips
        values = rng.normal(size=(videos * clips, WIDTH))
        if clips > 1:
            values = np.sqrt(0.5) * (values + rng.normal(size=(videos, WIDTH)).repeat(clips, 0))
        if freedom := self.case.freedom:
            values *= np.sqrt((freedom - 2) / rng.chisquare(freedom, size=(len(values), 1)))
        return values @ self.factors[side].T + side * self.mean

    def interval(self, videos: int, rng: np.random.Generator) -> dict[str, float]:
        """Value and half-width at infinitely many clips from one draw, and those of method 1 (first order)."""
        real, fake = (self.draw(side, videos, rng) for side in (0, 1))
        groups = np.arange(videos).repeat(self.case.clips)
        sampled = resampled(lambda i, j: frechet(real[i], fake[j]).value, groups, groups, rng)
        limit = at_infinity(real, fake, groups, groups, sampled, rng)
        assert limit is not None
        assert limit.margin is not None
        assert sampled.margin is not None
        return {
            "value": limit.value, "margin": limit.margin, "finite": sampled.value,
            "first_order": sampled.first_order, "first_order_margin": sampled.margin,
        }  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """Results of repeated draws of one case at one number of videos.

    truth: the true distance.
    finite, value, margin, first_order: means over the draws: of the distance at this number of videos, of the distance
        at infinitely many and its half-width, and of method 1.
    held, first_order_held: fraction of intervals that contain the truth.
    """

    case: str
    videos: int
    repeats: int
    truth: float
    finite: float
    value: float
    margin: float
    held: float
    first_order: float
    first_order_held: float


def coverage(case: Pair, videos: int, repeats: int, seed: int = 0) -> Coverage:
    """Repeats one case."""
    population = Population(case)
    rng = np.random.default_rng([seed, videos, *str(case).encode()])
    draws = [population.interval(videos, rng) for _ in range(repeats)]
    of = {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
    mean = {name: float(values.mean()) for name, values in of.items()}
    off = {name: np.abs(of[name] - population.truth) for name in ("value", "first_order")}
    return Coverage(
        case=str(case), videos=videos, repeats=repeats, truth=population.truth,
        finite=mean["finite"], value=mean["value"], margin=mean["margin"],
        held=float((off["value"] <= of["margin"]).mean()),
        first_order=mean["first_order"],
        first_order_held=float((off["first_order"] <= of["first_order_margin"]).mean()),
    )  # fmt: skip


def everything() -> Iterator[Coverage]:
    """Repeats all cases at all numbers of videos."""
    for case in CASES:
        for videos, repeats in REPEATS.items():
            yield coverage(case, videos, repeats)


def page(results: list[Coverage]) -> str:
    """The results as a page in Markdown."""
    lines = [
        "# How often the interval of FVD, infinite contains the truth",
        "",
        f"Two distributions of {WIDTH} features with known distance and traces of about {TRACE:g}; method {METHOD}.",
        "*FVD* is the distance at this number of videos on each side; *held* is the fraction of intervals that contain",
        "the true distance. *First order* is the extrapolation of method 1.",
        "",
        "| case | videos | truth | FVD | FVD, infinite | held | first order | held |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for c in results:
        numbers = (f"{c.truth:z.0f}", f"{c.finite:.0f}", f"{c.value:z.0f} ± {c.margin:.0f}", f"**{c.held:.2f}**")
        first_order = (f"{c.first_order:z.0f}", f"{c.first_order_held:.2f}")
        lines.append(" | ".join(("| " + c.case, str(c.videos), *numbers, *first_order)) + " |")
    for videos in REPEATS:
        rows = [c for c in results if c.videos == videos]
        if rows:
            held = sum(c.held * c.repeats for c in rows) / sum(c.repeats for c in rows)
            lines += ["", f"{videos} videos: {held:.3f} of {sum(c.repeats for c in rows)} intervals contain the truth."]
    return "\n".join([*lines, "", "Command:", "", "    python -m diffusion.evaluation.coverage FOLDER", ""])


def main(folder: Path) -> None:
    """Writes the page and the record into a folder."""
    session = Session(folder / "fvd-interval.jsonl", environment())
    results = []
    for result in everything():
        results.append(result)
        session.write("coverage", {"method": METHOD} | vars(result))
        click.echo(result, err=True)
        with written_whole(folder / "fvd-interval.md") as file:
            file.write(page(results).encode())


def _turn() -> np.ndarray:
    """(400, 400): a rotation by up to one radian; every call returns the same one."""
    values = np.random.default_rng(7).normal(size=(WIDTH, WIDTH))
    skew = values - values.T
    frequencies, vectors = np.linalg.eigh(1j * skew)
    angles = frequencies / np.abs(frequencies).max()
    return ((vectors * np.exp(-1j * angles)) @ vectors.conj().T).real


if __name__ == "__main__":
    main(Path(sys.argv[1]))
