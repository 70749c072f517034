"""The configuration of one cell at one seed: how it is trained, and how clips are sampled from it.  No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffusion.config import TrainConfig
from temporal_zoo.config import Config, ConfigError, option


@dataclass(frozen=True, kw_only=True)
class Drawing(Config):
    """How clips are sampled from a trained cell, and how they are compared with real ones."""

    count: int = option(32, "clips to sample; 0 evaluates the held-out loss only", least=0)
    sampler: Literal["ancestral", "ddim"] = option("ddim", "sampling method")
    steps: int = option(16, "noise levels that the sampler visits", least=1)
    extractor: str = option("plain", "network whose features are compared; only distances of i3d are called fvd")
    protocol: str = option("standard", "settings of the distance")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count == 1:
            raise ConfigError("Drawing.count is 1; a distance needs at least 2 clips, and 0 samples none")


@dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """Every setting that the result of a cell at one seed depends on; its digest names the folder."""

    train: TrainConfig = option(TrainConfig(), "the training run")
    drawing: Drawing = option(Drawing(), "the clips that are sampled and compared")
