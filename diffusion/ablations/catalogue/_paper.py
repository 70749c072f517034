"""Shared by the paper scales: a published model with its training (arXiv 2403.07711), evaluated on 2,000 clips."""

from __future__ import annotations

from diffusion.ablations.recipe import Drawing, Recipe
from diffusion.presets import preset


def paper(size: str, *changes: str) -> Recipe:
    """The model of this size in the paper, with its training and sampling; `--data` names the videos."""
    train = preset(f"paper-{size}").override(["test_clips=256", "sample_every=1000000"])
    drawing = Drawing(count=2000, sampler="ancestral", steps=256, protocol="paper")
    return Recipe(train=train, drawing=drawing).override(changes)
