"""`DataConfig`: which videos, and how clips are cut from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from temporal_zoo.config import Config, option

Split = Literal["train", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Which videos to train on and how clips are cut from them."""

    source: str = option("builtin:mazes", "a file, a folder, a built cache, or builtin:mazes, builtin:doom")
    frames: int = option(16, "frames of a clip", least=1)
    stride: int = option(1, "take every so many-th frame of the video", least=1)
    size: int = option(
        32, "height and width in pixels; other shapes are cropped at the centre and resized", least=4, most=4096
    )
    short: Literal["drop", "error", "pad"] = option(
        "drop", "videos shorter than a clip: leave out, refuse, pad with zeros"
    )
    flip: bool = option(False, "mirror a random half of the drawn clips left to right")
    videos: int | None = option(None, "use only the first so many videos of a split; none = all", least=1)
    test_share: float = option(
        0.1, "share of the videos held out when the source has no train and test folders", least=0, most=0.9
    )
    seed: int = option(0, "seed of the worlds of builtin:mazes; the draw of clips has the training's seed", least=0)
    cache: str | None = option(None, "folder of the decoded videos; none = one in the user's cache folder")

    @property
    def span(self) -> int:
        """Video frames from a clip's first to its last one."""
        return (self.frames - 1) * self.stride + 1
