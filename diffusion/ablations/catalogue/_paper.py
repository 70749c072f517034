"""What the paper scales share: a published model and its training (arXiv 2403.07711), judged by 2,000 clips."""

from __future__ import annotations

from diffusion.ablations.ablation import Drawing, Recipe
from diffusion.presets import preset


def paper(size: str, *changes: str) -> Recipe:
    """The model that the paper prints with that size, trained and sampled as there; `--data` names its videos."""
    train = preset(f"paper-{size}").override(["test_clips=256", "sample_every=1000000"])
    drawing = Drawing(count=2000, sampler="ancestral", steps=256, protocol="paper")
    return Recipe(train=train, drawing=drawing).override(changes)
