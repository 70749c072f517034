"""`ClipSource`: clips cut from videos, each a pure function of its number and a seed."""

from __future__ import annotations

import logging
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch

from diffusion.clip import Clip
from diffusion.data import DataError
from diffusion.data.config import DataConfig, Split
from diffusion.data.layout import builtin, locate
from diffusion.process.randomness import generator

log = logging.getLogger("temporal_zoo.data")


class Videos(Protocol):
    """Decoded videos of one size, read by slices of time.

    rates: frames per second of each video; fps: their median.
    contents: a digest of each video's frames, by name; empty for videos that are rendered from the configuration.
    """

    channels: int
    size: int
    fps: float
    rates: list[float]
    names: list[str]
    lengths: list[int]

    @property
    def contents(self) -> dict[str, str]: ...

    def read(self, video: int, frames: slice) -> np.ndarray:
        """Frames of one video, (frames, height, width, channels) uint8; only these are touched."""
        ...


class ClipSource:
    """Clips of one split of some videos; made by `open_clips`.

    Attributes: channels, size (pixels, height = width), fps (of the clips: the videos' median over the stride),
    num_videos, num_windows (the number of different clips that can be cut), and contents (a digest of the frames of
    each video by name; `diffusion.data.changes.Changes.between` compares two of them).
    """

    def __init__(self, videos: Videos, config: DataConfig, *, split: str) -> None:
        self.videos, self.config, self.split = videos, config, split
        self.channels, self.size, self.fps = videos.channels, videos.size, videos.fps / config.stride
        self._usable = self._long_enough()
        self.contents = videos.contents
        self.num_videos = len(self._usable)
        lengths = [videos.lengths[video] for video in self._usable]
        self._frames_up_to = list(accumulate(lengths))
        self._windows_up_to = list(accumulate(max(1, length - config.span + 1) for length in lengths))
        self.num_windows = self._windows_up_to[-1]

    def draw(self, number: int, seed: int) -> Clip:
        """Clip `number` of the endless random sequence that `seed` names.

        Videos are chosen in proportion to their frames, then one of their windows.  The draw depends on (seed, number)
        only, so any order, any number of workers and a resumed run give the same clips.
        """
        dice = generator(seed, "window", number)
        frame = int(torch.randint(self._frames_up_to[-1], (), generator=dice))
        place = int(np.searchsorted(self._frames_up_to, frame, side="right"))
        windows = max(1, self.videos.lengths[self._usable[place]] - self.config.span + 1)
        start = int(torch.randint(windows, (), generator=dice))
        flip = self.config.flip and bool(torch.randint(2, (), generator=generator(seed, "flip", number)))
        return self._cut(place, start, flip=flip)

    def crop(self, number: int, seed: int) -> Clip:
        """Clip `number` of a sequence that takes every video in turn, each time at a window not taken before.

        Never mirrored.  After `num_rounds` turns some video has no window left, and its clips come again.
        """
        turn, place = number // self.num_videos, self._place(number, seed)
        windows = max(1, self.videos.lengths[self._usable[place]] - self.config.span + 1)
        starts = torch.randperm(windows, generator=generator(seed, "crops", place))
        return self._cut(place, int(starts[turn % windows]))

    def video_of_crop(self, number: int, seed: int) -> str:
        """The name of the video that clip `number` of `crop` is cut from."""
        return self.videos.names[self._usable[self._place(number, seed)]]

    def _place(self, number: int, seed: int) -> int:
        order = torch.randperm(self.num_videos, generator=generator(seed, "order"))
        return int(order[number % self.num_videos])

    @property
    def num_rounds(self) -> int:
        """How many different clips the video with the fewest gives."""
        return min(max(1, self.videos.lengths[video] - self.config.span + 1) for video in self._usable)

    def fixed(self, count: int) -> list[Clip]:
        """`count` clips spread evenly over all windows of all videos: the same whenever they are asked for."""
        clips = []
        for index in range(count):
            window = (2 * index + 1) * self.num_windows // (2 * count)
            place = int(np.searchsorted(self._windows_up_to, window, side="right"))
            clips.append(self._cut(place, window - ([0, *self._windows_up_to][place])))
        return clips

    def _cut(self, place: int, start: int, *, flip: bool = False) -> Clip:
        window = slice(start, start + self.config.span, self.config.stride)
        video = self._usable[place]
        pixels = self.videos.read(video, window)
        if flip:
            pixels = pixels[:, :, ::-1]
        return Clip(
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
            self.videos.rates[video] / self.config.stride,
        )

    def _long_enough(self) -> list[int]:
        """The videos that give clips, after the policy for short ones; says so when some are left out."""
        config, lengths = self.config, self.videos.lengths
        if not lengths:
            raise DataError(f"{config.source} has no videos in its {self.split} split")
        if config.short == "pad":
            return list(range(len(lengths)))
        long = [video for video, length in enumerate(lengths) if length >= config.span]
        if num_short := len(lengths) - len(long):
            need = f"a clip spans {config.span} frames ({config.frames} at stride {config.stride})"
            first = next(video for video, length in enumerate(lengths) if length < config.span)
            example = f"such as {self.videos.names[first]} with {lengths[first]}"
            if not long:
                raise DataError(
                    f"{need}, but the longest video of the {self.split} split of {config.source} has {max(lengths)}; "
                    "ask for fewer frames, or pad with short=pad"
                )
            if config.short == "error":
                raise DataError(f"{need}; {num_short} of {len(lengths)} videos are shorter, {example}")
            log.warning("%s; %d of %d shorter videos are left out, %s", need, num_short, len(lengths), example)
        return long


def open_videos(config: DataConfig, split: Split) -> Videos:
    """The videos of one split: rendered for builtin:mazes, else from the cache of decoded files, built if need be."""
    if builtin(config.source) == "mazes":
        from diffusion.data.maze_videos import MazeVideos

        return MazeVideos.of(config, split)
    from diffusion.data.cache import cached_videos

    return cached_videos(locate(config.source), config, split)
