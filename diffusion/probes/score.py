"""Scores of mixers: means over seeds with intervals, the best possible errors, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion.evaluation.uncertainty import Estimate, mean_over_seeds
from diffusion.probes.tasks import get
from diffusion.probes.trial import ProbeTrial

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Score:
    """The score of one mixer at one difficulty, noise and length.

    error: of the mixer.  past, whole: the best possible errors given the past, and given the whole sequence.
    above_past, above_whole: error of the mixer minus these best errors, on the same sequences.
    """

    mixer: str
    level: float
    noise: float
    frames: int
    seeds: int
    causal: bool
    control: bool
    parameters: int
    processor_s: float
    error: Estimate
    past: float
    whole: float
    above_past: Estimate
    above_whole: Estimate

    @property
    def solved(self) -> float:
        """Fraction of the distance from chance to the best possible error of such a mixer: 1 is perfect."""
        best = self.past if self.causal else self.whole
        return (1 - self.error.value) / (1 - best)

    @property
    def impossible(self) -> bool:
        """Whether the error lies below the best possible one: of the past for a causal mixer, of all for any mixer."""
        return (self.causal and self.above_past.below_zero) or self.above_whole.below_zero

    @property
    def verdict(self) -> str:
        """The conclusion as a few words."""
        if self.impossible:
            return f"IMPOSSIBLE: below the best of {'the past' if self.causal else 'all'}"
        if self.control:
            return "control"
        if self.causal:
            return "within what the past allows"
        if self.past - self.whole < 1e-3:
            return "the future does not help here"
        return "uses the future" if self.above_past.below_zero else "not seen to use the future"


def scores(probe: str, results: Sequence[tuple[ProbeTrial, dict[str, Any]]]) -> list[Score]:
    """One score for each mixer, difficulty, noise and length, in the order of the trials."""
    groups: dict[tuple[float, float, int, str], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for trial, result in results:
        for test in result["tests"]:
            groups.setdefault((trial.level, trial.noise, test["frames"], trial.mixer), []).append((result, test))
    return [_score(probe, *key, group) for key, group in groups.items()]


def _score(
    probe: str, level: float, noise: float, frames: int, mixer: str, group: list[tuple[dict[str, Any], dict[str, Any]]]
) -> Score:
    result, tests = group[0][0], [test for _, test in group]
    measured = (float(np.mean([test["errors"][name][0] for test in tests])) for name in ("past", "whole"))
    past, whole = get(probe)(level, noise).bounds(frames) or measured
    return Score(
        mixer=mixer,
        level=level,
        noise=noise,
        frames=frames,
        seeds=len(tests),
        causal=result["causal"],
        control=result["order_blind"],
        parameters=result["parameters"],
        processor_s=max(result["processor_s"] for result, _ in group),
        error=over_seeds([test["errors"]["mixer"] for test in tests]),
        past=past,
        whole=whole,
        above_past=over_seeds([test["gaps"]["past"] for test in tests]),
        above_whole=over_seeds([test["gaps"]["whole"] for test in tests]),
    )


def over_seeds(estimates: Sequence[Sequence[float]]) -> Estimate:
    """Mean of (value, standard error) pairs of independent seeds, with its 95 % interval.

    The spread over seeds gives the interval (Student's t); a single seed uses the spread over its sequences.
    """
    mean = mean_over_seeds([value for value, _ in estimates])
    if mean.margin is None:
        return Estimate(mean.value, _NORMAL_95 * estimates[0][1])
    return mean
