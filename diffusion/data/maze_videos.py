"""The videos of builtin:mazes.  Each is rendered and written to disk when it is first read."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from diffusion.data import mazes
from diffusion.data.config import DataConfig, Split
from diffusion.data.videos import read_frames
from temporal_zoo._support.files import cache_folder, written_whole

TRAIN_VIDEOS = 256
TEST_VIDEOS = 32
FIRST_TEST = 1_000_000  # index of the first held-out maze

# Part of the folder's name.  Increase it when the video of a (seed, index) would look different.
_LOOK = 1


class MazeVideos:
    """Mazes by index, with one file of raw frames each; see `diffusion.data.videos.Videos`."""

    channels = 3
    fps = mazes.FPS

    def __init__(self, folder: Path, indices: list[int], *, seed: int, size: int, frames: int) -> None:
        self.folder = folder / f"mazes-look{_LOOK}-seed{seed}-size{size}-frames{frames}"
        self.size = size
        self.names = [f"maze {index}" for index in indices]
        self.lengths = [frames] * len(indices)
        self.rates = [float(self.fps)] * len(indices)
        self.contents: dict[str, str] = {}
        self._indices, self._seed = indices, seed

    @classmethod
    def of(cls, config: DataConfig, split: Split) -> Self:
        """The configured number of mazes, long enough for the clips."""
        train = list(range(config.videos or TRAIN_VIDEOS))
        test = [FIRST_TEST + index for index in range(config.videos or TEST_VIDEOS)]
        indices = {"train": train, "test": test, "all": train + test}[split]
        frames = max(mazes.FRAMES, config.span)
        folder = Path(config.cache).expanduser() if config.cache else cache_folder()
        return cls(folder, indices, seed=config.seed, size=config.size, frames=frames)

    def read(self, video: int, frames: slice) -> np.ndarray:
        """Frames of one video, (frames, size, size, 3) uint8."""
        index = self._indices[video]
        path = self.folder / f"{index:07d}.u8"
        if not path.exists():
            pixels = mazes.video(self._seed, index, size=self.size, frames=self.lengths[video])
            with written_whole(path) as file:
                file.write(pixels.data)
        return read_frames(path, frames, length=self.lengths[video], size=self.size, channels=3)
