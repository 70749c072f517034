"""Shared by the toy scales: a small network on the recorded walks of this package; takes minutes on two cores.

One step of eight clips takes about 0.15 s (identity) to 0.35 s (attention) on one core, 0.2 s with a recurrence.
"""

from __future__ import annotations

from diffusion.ablations.recipe import Drawing, Recipe
from diffusion.presets import preset


def toy(*changes: str) -> Recipe:
    """500 steps of eight clips of 16 frames, 16 x 16 pixels, then 32 clips from DDIM with 16 steps; with `changes`."""
    train = preset("tiny").override([
        "data.source=builtin:doom",
        "data.size=16",
        "data.flip=yes",
        "model.size=16",
        "optimizer.decay=0.4",
        "optimizer.warmup=40",
        "steps=500",
        "save_every=50",
        "sample_every=1000000",
        "test_every=50",
        "test_clips=128",
    ])  # fmt: skip
    return Recipe(train=train, drawing=Drawing()).override(changes)
