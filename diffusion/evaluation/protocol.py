"""What an FVD is computed with: range, resizing, quantisation, windows and reference, as frozen records with a digest.

Numbers of different digests cannot be compared, and the two sides of one number share one protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffusion.data import Split
from diffusion.evaluation import EvaluationError
from temporal_zoo._support.environment import digest
from temporal_zoo.config import Config, nearest, option


@dataclass(frozen=True, kw_only=True)
class Protocol(Config):
    """How clips become what the network sees, and which real clips are the reference."""

    name: str = option("standard", "what tables call it")
    low: Literal[-1, 0] = option(-1, "what black becomes; white becomes 1")
    resize: Literal["half-pixel", "legacy"] = option(
        "half-pixel", "bilinear; source of pixel i is (i + 1/2) / scale - 1/2, or with TensorFlow 1's default i / scale"
    )
    quantised: bool = option(True, "whether floats are first rounded to 0..255 and clamped, on both sides")
    window: int | None = option(
        16, "frames of the windows along the clip that are compared too, where it is longer; none: the whole clip only"
    )
    static: bool = option(True, "whether a single frame, repeated, is compared too: what of a distance is not motion")
    reference: Split = option("test", "the split that real clips are cut from")
    count: int = option(2048, "clips per side, or all where there are fewer", least=2)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the protocol, its name left out."""
        return digest({name: value for name, value in self.to_dict().items() if name not in ("name", "count")})


PRESETS = {
    preset.name: preset
    for preset in (
        # As the paper's published code does it, inputs of half the range included (arXiv 2403.07711).
        Protocol(
            name="paper", low=0, resize="legacy", quantised=False, window=None, static=False, reference="all",
            count=2000,
        ),
        Protocol(name="standard"),
        # As the code of google-research that came with FVD (arXiv 1812.01717).
        Protocol(name="google", resize="legacy", window=None, static=False),
    )
}  # fmt: skip

# Which published numbers those of a preset may be compared with, for reports; docs/evaluation.md says it in full.
PUBLISHED = {
    "paper": "computes FVD as the published code of arXiv 2403.07711 does",
    "standard": "equals no published protocol; with --frames 16 --count 2048 --split train nearest to fvd2048_16f "
    "of StyleGAN-V, which divides covariances by N and not by N - 1",
    "google": "computes FVD as the code of google-research for arXiv 1812.01717 does, on clips rounded to 0..255",
}


def protocol(name: str) -> Protocol:
    """The preset of that name.  Raises: EvaluationError, listing the presets."""
    if name not in PRESETS:
        raise EvaluationError(f"there is no protocol {name!r}{nearest(name, PRESETS)}; there is {', '.join(PRESETS)}")
    return PRESETS[name]
