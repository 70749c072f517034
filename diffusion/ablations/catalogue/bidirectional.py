"""Does a recurrence over frames need both directions of time? (Table 4 of arXiv 2403.07711)"""

from __future__ import annotations

from diffusion.ablations.ablation import Cell, Contrast, Scale, crossed
from diffusion.ablations.catalogue._paper import paper
from diffusion.ablations.catalogue._toy import toy

QUESTION = "Is a recurrence over frames better in both directions of time than in one?"
CONTRASTS = (Contrast("directions", "both", "one"),)
REFERENCES = crossed({"mixer": {name: f"train.model.mixer={name}" for name in ("identity", "flash")}}, reference=True)


def recurrences() -> dict[str, tuple[str, str]]:
    """Each registered recurrence that exists for one and for both directions -> its two mixers."""
    from temporal_zoo import MixerSpec, StatefulMixer, get, names
    from temporal_zoo.config import hints

    canonical = lambda text: str(MixerSpec.parse(text).canonical())
    mixers = {}
    for name in names():
        mixer = get(name).mixer
        if issubclass(mixer, StatefulMixer) and "bidirectional" in hints(mixer.Config):
            mixers[name] = canonical(f"{name}:bidirectional=no"), canonical(f"{name}:bidirectional=yes")
        elif issubclass(mixer, StatefulMixer) and f"bi{name}" in names():
            mixers[name] = name, f"bi{name}"
    return mixers


def _cells() -> tuple[Cell, ...]:
    cells = tuple(
        Cell({"mixer": name, "directions": directions}, (f"train.model.mixer={mixer}",))
        for name, mixers in recurrences().items()
        for directions, mixer in zip(("one", "both"), mixers, strict=True)
    )
    return cells + REFERENCES


SCALES = {
    "toy": lambda: Scale(base=toy(), cells=_cells()),
    "paper": lambda: Scale(base=paper("57.5M"), cells=_cells()),
}
