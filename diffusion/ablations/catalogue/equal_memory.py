"""At equal memory, is a recurrence better than attention, fused or recomputed? (the claim of arXiv 2403.07711)"""

from __future__ import annotations

from diffusion.ablations.ablation import Cell, Contrast, Scale, crossed
from diffusion.ablations.budget import Budget
from diffusion.ablations.catalogue._paper import paper
from diffusion.ablations.catalogue._toy import toy
from diffusion.ablations.recipe import Recipe

QUESTION = "If every network stores equally many bytes for backward, is a recurrence better than attention?"
CONTRASTS = tuple(Contrast("mixer", "bimamba", other) for other in ("attn", "flash", "attn checkpointed"))
BUDGET = Budget("stored_bytes")


def _cells(attention: str) -> tuple[Cell, ...]:
    """The budget makes the others equal to the first cell."""
    unfused, fused = (f"train.model.mixer={name}{attention}" for name in ("attn", "flash"))
    mixers = {
        "bimamba": "train.model.mixer=bimamba",
        "s4d": "train.model.mixer=s4d",
        "attn": unfused,
        "flash": fused,
        "attn checkpointed": f"{unfused} train.model.checkpointing=mixers",
    }
    control = crossed({"mixer": {"identity": "train.model.mixer=identity"}}, reference=True)
    return crossed({"mixer": mixers}) + control


def _scale(base: Recipe, attention: str) -> Scale:
    return Scale(base=base, cells=_cells(attention), budget=BUDGET)


SCALES = {
    "toy": lambda: _scale(
        toy("train.data.frames=64", "train.batch=1", "train.test_clips=32", "train.model.groups=2", "drawing.count=16"),
        ":heads=4",
    ),
    "paper": lambda: _scale(paper("57.5M"), ":heads=8"),
}
