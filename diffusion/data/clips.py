"""`ClipSource` cuts clips from videos; each clip is a pure function of its number and a seed."""

from __future__ import annotations

import logging
from itertools import accumulate

import numpy as np
import torch

from diffusion.clip import Clip
from diffusion.data import DataError
from diffusion.data.config import DataConfig
from diffusion.data.videos import Videos
from diffusion.randomness import generator

log = logging.getLogger("temporal_zoo.data")


class ClipSource:
    """Clips of one split of a source; `open_clips` opens it.

    Attributes:
        channels: number of channels of a clip.
        size: height and width in pixels.
        fps: frames per second of the clips: the videos' median divided by the stride.
        num_videos: number of videos that are long enough.
        num_windows: number of different clips that can be cut.
        contents: a digest of each video's frames, by name; `diffusion.data.Changes.between` compares two of them.
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
        """Draws clip `number` of the infinite random sequence of `seed`.

        First a video is chosen with a probability proportional to its number of frames, then one of its windows.  The
        draw depends only on (seed, number), so any order, any number of workers and a resumed run give the same clips.
        """
        rng = generator(seed, "window", number)
        frame = int(torch.randint(self._frames_up_to[-1], (), generator=rng))
        index = int(np.searchsorted(self._frames_up_to, frame, side="right"))
        windows = max(1, self.videos.lengths[self._usable[index]] - self.config.span + 1)
        start = int(torch.randint(windows, (), generator=rng))
        flip = self.config.flip and bool(torch.randint(2, (), generator=generator(seed, "flip", number)))
        return self._cut(index, start, flip=flip)

    def crop(self, number: int, seed: int) -> Clip:
        """Cuts clip `number` of a sequence that takes the videos in turn, each time at a new window.

        Clips are never mirrored.  After `num_rounds` turns, some video has no new window, and its clips repeat.
        """
        turn, index = number // self.num_videos, self._index(number, seed)
        windows = max(1, self.videos.lengths[self._usable[index]] - self.config.span + 1)
        starts = torch.randperm(windows, generator=generator(seed, "crops", index))
        return self._cut(index, int(starts[turn % windows]))

    def video_of_crop(self, number: int, seed: int) -> str:
        """The name of the video that clip `number` of `crop` is cut from."""
        return self.videos.names[self._usable[self._index(number, seed)]]

    def _index(self, number: int, seed: int) -> int:
        """Which of the usable videos clip `number` of `crop` is cut from."""
        order = torch.randperm(self.num_videos, generator=generator(seed, "order"))
        return int(order[number % self.num_videos])

    @property
    def num_rounds(self) -> int:
        """The number of different clips of the shortest usable video."""
        return min(max(1, self.videos.lengths[video] - self.config.span + 1) for video in self._usable)

    def fixed(self, count: int) -> list[Clip]:
        """Cuts `count` clips, spread evenly over all windows of all videos; every call returns the same clips."""
        clips = []
        for number in range(count):
            window = (2 * number + 1) * self.num_windows // (2 * count)
            index = int(np.searchsorted(self._windows_up_to, window, side="right"))
            clips.append(self._cut(index, window - ([0, *self._windows_up_to][index])))
        return clips

    def _cut(self, index: int, start: int, *, flip: bool = False) -> Clip:
        """Cuts one window of a usable video."""
        window = slice(start, start + self.config.span, self.config.stride)
        video = self._usable[index]
        pixels = self.videos.read(video, window)
        if flip:
            pixels = pixels[:, :, ::-1]
        return Clip(
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
            self.videos.rates[video] / self.config.stride,
        )

    def _long_enough(self) -> list[int]:
        """The videos to cut clips from, by `config.short`; logs a warning if some are left out."""
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
                    "choose fewer frames, or set short=pad"
                )
            if config.short == "error":
                raise DataError(f"{need}; {num_short} of {len(lengths)} videos are shorter, {example}")
            log.warning("%s; %d of %d videos are shorter and are left out, %s", need, num_short, len(lengths), example)
        return long
