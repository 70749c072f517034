"""Which target should the network predict, and which sampler gives better clips with it?"""

from __future__ import annotations

from diffusion.ablations.ablation import Contrast, Scale, crossed
from diffusion.ablations.catalogue._paper import paper
from diffusion.ablations.catalogue._toy import toy
from diffusion.ablations.recipe import Recipe

QUESTION = "Should the network predict noise, clean clip or v, and should the sampler be DDIM or ancestral?"
CONTRASTS = (
    Contrast("target", "v", "epsilon"),
    Contrast("target", "v", "x0"),
    Contrast("sampler", "ancestral", "ddim"),
)


def _scale(base: Recipe) -> Scale:
    cells = crossed({
        "target": {name: f"train.process.prediction={name}" for name in ("epsilon", "x0", "v")},
        "sampler": {name: f"drawing.sampler={name}" for name in ("ddim", "ancestral")},
    })  # fmt: skip
    # Losses of different targets have different units; the error of v exists for all targets.
    return Scale(base=base, cells=cells, held_out="v")


SCALES = {
    "toy": lambda: _scale(toy("train.model.mixer=bimamba", "drawing.steps=32")),
    "paper": lambda: _scale(paper("57.5M")),
}
