"""Should a selective recurrence use its parameters for a larger state or for a larger inner width?"""

from __future__ import annotations

from diffusion.ablations.ablation import Contrast, Scale, crossed
from diffusion.ablations.budget import Budget
from diffusion.ablations.catalogue._paper import paper
from diffusion.ablations.catalogue._toy import toy
from diffusion.ablations.recipe import Recipe

QUESTION = "At equal parameters, what do the state size and the expansion of a bidirectional Mamba contribute?"
CONTRASTS = (Contrast("state", "16", "4"), Contrast("state", "64", "16"), Contrast("expansion", "2", "1"))
# Widths are multiples of a unit, so that parameters cannot match exactly.
BUDGET = Budget("parameters", tolerance=0.12)


def _scale(base: Recipe) -> Scale:
    specs = {(state, expand): f"bimamba:state={state}:expand={expand}" for expand in (2, 1) for state in (16, 4, 64)}
    control = crossed({"state": {"identity": "train.model.mixer=identity"}}, reference=True)
    # The published layer comes first: the budget gives all others equally many parameters.
    cells = tuple(
        cell
        for (state, expand), spec in specs.items()
        for cell in crossed({"state": {str(state): f"train.model.mixer={spec}"}, "expansion": {str(expand): ""}})
    )
    return Scale(base=base, cells=cells + control, budget=BUDGET)


SCALES = {
    "toy": lambda: _scale(toy("train.model.groups=2")),
    "paper": lambda: _scale(paper("57.5M")),
}
