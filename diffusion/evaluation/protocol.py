"""Settings of an FVD: range, resizing, quantisation, windows and reference, as frozen records with a digest.

Values with different digests cannot be compared.  Both sides of one value have the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffusion.data import Split
from diffusion.evaluation import EvaluationError
from temporal_zoo._support.environment import digest
from temporal_zoo.config import Config, nearest, option


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol(Config):
    """How clips are converted to the input of the network, and which real clips are the reference."""

    name: str = option("standard", "the name in tables")
    low: Literal[-1, 0] = option(-1, "the input value of black; white is 1")
    resize: Literal["half-pixel", "legacy"] = option(
        "half-pixel",
        "bilinear; pixel i comes from (i + 1/2) / scale - 1/2 (half-pixel) or i / scale (legacy, TensorFlow 1)",
    )
    quantised: bool = option(True, "whether floats are first rounded to 0..255 and clamped, on both sides")
    window: int | None = option(
        16,
        "frames of windows that are also compared, if clips are at least twice as long; none = no windows",
    )
    static: bool = option(
        True, "whether one repeated frame is also compared: the part of a distance that is not motion"
    )
    reference: Split = option("test", "the split that real clips are cut from")
    count: int = option(2048, "clips per side, or all if there are fewer", least=2)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify the settings, without the name and the number of clips."""
        return digest({name: value for name, value in self.to_dict().items() if name not in ("name", "count")})


PRESETS = {
    preset.name: preset
    for preset in (
        # As in the paper's published code, including inputs of half the range (arXiv 2403.07711).
        EvaluationProtocol(
            name="paper", low=0, resize="legacy", quantised=False, window=None, static=False, reference="all",
            count=2000,
        ),
        EvaluationProtocol(name="standard"),
        # As in the code of google-research for FVD (arXiv 1812.01717).
        EvaluationProtocol(name="google", resize="legacy", window=None, static=False),
    )
}  # fmt: skip

# The published values that a preset is comparable with, for reports; docs/evaluation.md has the details.
PUBLISHED = {
    "paper": "computes FVD as the published code of arXiv 2403.07711 does",
    "standard": "equals no published protocol; with --frames 16 --count 2048 --split train, the nearest is fvd2048_16f "
    "of StyleGAN-V, which divides covariances by N and not by N - 1",
    "google": "computes FVD as the code of google-research for arXiv 1812.01717 does, on clips rounded to 0..255",
}


def protocol(name: str) -> EvaluationProtocol:
    """The preset of that name.

    Raises:
        EvaluationError: there is no such preset.  The message lists the presets.
    """
    if name not in PRESETS:
        raise EvaluationError(f"unknown protocol {name!r}{nearest(name, PRESETS)}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
