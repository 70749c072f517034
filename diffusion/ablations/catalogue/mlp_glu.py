"""Which layer should follow a bidirectional S4D: none, a GLU, an MLP, or both? (arXiv 2403.07711, version 1)"""

from __future__ import annotations

from diffusion.ablations.ablation import Contrast, Scale, crossed
from diffusion.ablations.catalogue._paper import paper
from diffusion.ablations.catalogue._toy import toy
from diffusion.ablations.recipe import Recipe

QUESTION = "After a state space model in both directions of time, do the channels need a gate, an MLP, or both?"
CONTRASTS = tuple(Contrast("after", better, "nothing") for better in ("GLU", "MLP", "GLU and MLP"))


def _scale(base: Recipe, hidden: int) -> Scale:
    """hidden: width of the MLP."""
    after = {
        "nothing": "s4d:glu=no",
        "GLU": "s4d",
        "MLP": f"s4d:glu=no:merge=concat:mlp={hidden}:mlp_gelu=yes",
        "GLU and MLP": f"s4d:mlp={hidden}",
    }
    control = crossed({"after": {"identity": "train.model.mixer=identity"}}, reference=True)
    cells = crossed({"after": {name: f"train.model.mixer={spec}" for name, spec in after.items()}})
    return Scale(base=base, cells=cells + control)


SCALES = {"toy": lambda: _scale(toy(), 128), "paper": lambda: _scale(paper("57.5M"), 512)}
