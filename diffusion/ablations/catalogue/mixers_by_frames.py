"""At each clip length, what quality does each mixer reach with its memory? (Tables 2, 3 of arXiv 2403.07711)"""

from __future__ import annotations

from diffusion.ablations.ablation import Cell, Contrast, Scale, crossed
from diffusion.ablations.catalogue._paper import paper
from diffusion.ablations.catalogue._toy import toy

QUESTION = "At each clip length, how good is each mixer, and how many bytes does it store?"
CONTRASTS = (Contrast("mixer", "bimamba", "flash"), Contrast("mixer", "s4d", "flash"))
APART = ("frames",)
MIXERS = ("attn", "flash", "s4d", "mamba", "bimamba")
# The published widths, of 14 to 913 million parameters.
WIDTHS = (32, 64, 128, 256)


def _toy() -> Scale:
    # A step has equally many frames at each clip length, and so has the test.
    frames = {
        "16": "train.data.frames=16 train.batch=4",
        "64": "train.data.frames=64 train.batch=1 train.test_clips=32",
    }
    mixers = {name: f"train.model.mixer={name}" for name in MIXERS}
    control = crossed({"mixer": {"identity": "train.model.mixer=identity"}, "frames": frames}, reference=True)
    return Scale(
        base=toy("train.steps=350", "train.test_every=70", "drawing.count=16"),
        cells=crossed({"mixer": mixers, "frames": frames}) + control,
    )


def _paper() -> Scale:
    cells: list[Cell] = []
    for width in WIDTHS:
        sizes = {str(width): f"train.model.width={width} train.model.heads={width // 8}"}
        specs = {name: name for name in (*MIXERS, "identity")}
        specs |= {"attn": f"attn:heads={width // 8}:relative_bias=yes", "flash": f"flash:heads={width // 8}"}
        for name, spec in specs.items():
            axes = {"mixer": {name: f"train.model.mixer={spec}"}, "width": sizes, "frames": _published_frames()}
            cells += crossed(axes, reference=name == "identity")
    return Scale(base=paper("57.5M"), cells=tuple(cells))


def _published_frames() -> dict[str, str]:
    return {str(frames): f"train.data.frames={frames}" for frames in (16, 64, 256)}


SCALES = {"toy": _toy, "paper": _paper}
