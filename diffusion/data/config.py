"""`DataConfig`: which videos are used, and how clips are cut from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from temporal_zoo.config import Config, option

Split = Literal["train", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Which videos are used, and how clips are cut from them."""

    source: str = option("builtin:mazes", "a file, a folder, a built cache, or builtin:mazes, builtin:doom")
    frames: int = option(16, "number of frames of a clip", least=1)
    stride: int = option(1, "distance between frames of a clip, in frames of the video", least=1)
    size: int = option(
        32, "height and width in pixels; videos are cropped to the centre square and resized", least=4, most=4096
    )
    short: Literal["drop", "error", "pad"] = option(
        "drop", "what to do with videos shorter than a clip: leave them out, stop with an error, pad with zeros"
    )
    flip: bool = option(False, "mirror a random half of the training clips left to right")
    videos: int | None = option(None, "use only this number of videos of a split; none = all", least=1)
    test_share: float = option(
        0.1, "fraction of the videos held out, if the source has no train and test folders", least=0, most=0.9
    )
    seed: int = option(0, "seed of builtin:mazes; clips are drawn with the seed of the training", least=0)
    cache: str | None = option(None, "folder for the decoded videos; none = a folder in the user's cache")

    @property
    def span(self) -> int:
        """Number of video frames from a clip's first to its last one."""
        return (self.frames - 1) * self.stride + 1
