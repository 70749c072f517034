"""Sets of clips of one length and size: cut from videos, or arrays as a sampler left them.

Letters: t frames, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from diffusion.data import DataConfig, open_clips
from diffusion.data.build import is_cache, read_meta
from diffusion.data.config import Split
from diffusion.data.layout import Item, builtin, find_items, locate
from diffusion.data.readers import UnreadableVideo, recordings
from diffusion.data.source import ClipSource
from diffusion.evaluation import EvaluationError

_LOOKED_AT = 8  # clips whose range is looked at when a set is opened; that of all others when they are read


class ClipSet(Protocol):
    """Some clips, by number from 0.

    name: for tables.  frames, size, channels: of every clip.  num_videos: how many videos they were cut from.
    """

    name: str
    count: int
    frames: int
    size: int
    channels: int
    num_videos: int

    def read(self, number: int) -> Tensor:
        """(t, c, h, w) uint8, or floats in [-1, 1]."""
        ...


class Crops:
    """Clips `first` to `first + count` of a source: every video in turn, each time at another random window.

    Raises: EvaluationError when clips would come twice.
    """

    def __init__(self, source: ClipSource, count: int, *, seed: int, first: int = 0) -> None:
        if (most := source.num_videos * source.num_rounds) < first + count:
            raise EvaluationError(
                f"{source.config.source} gives {most} different clips of {source.config.frames} frames, a turn of each "
                f"of its {source.num_videos} videos at a time, and {first + count} are asked for; ask for fewer clips"
            )
        self.name, self.count, self.frames = source.config.source, count, source.config.frames
        self.size, self.channels, self.num_videos = source.size, source.channels, min(count, source.num_videos)
        self._source, self._seed, self._first = source, seed, first

    def read(self, number: int) -> Tensor:
        """(t, c, h, w) uint8."""
        return self._source.crop(self._first + number, self._seed).pixels


class Arrays:
    """npy files with a clip each, (t, h, w, c): uint8, or floats in [-1, 1].  Longer ones are cut at `frames`.

    Raises: EvaluationError when there is none, or they differ in shape or type.
    """

    def __init__(self, name: str, paths: Iterable[Path], frames: int | None = None) -> None:
        self.name, self._paths = name, list(paths)
        if not self._paths:
            raise EvaluationError(f"{name} holds no npy files")
        kinds = {(array.shape, array.dtype.name): path for path in self._paths for array in [_mapped(path)]}
        if len(kinds) > 1:
            told = "; ".join(f"{path.name} is {kind} {shape}" for (shape, kind), path in list(kinds.items())[:2])
            raise EvaluationError(f"the clips in {name} differ: {told}; compare clips of one shape and type")
        ((shape, kind),) = kinds
        if len(shape) != 4 or shape[3] not in (1, 3) or shape[1] != shape[2]:
            raise EvaluationError(f"clips in {name} are {shape}; store (frames, size, size, 1 or 3 channels)")
        if kind not in ("uint8", "float16", "float32", "float64"):
            raise EvaluationError(f"clips in {name} are {kind}; store uint8, or floats in [-1, 1]")
        if frames is not None and frames > shape[0]:
            raise EvaluationError(f"clips in {name} have {shape[0]} frames, not {frames}; ask for fewer")
        if kind != "uint8" and all(_mapped(path).min() >= 0 for path in self._paths[:_LOOKED_AT]):
            raise EvaluationError(
                f"the floats in {name} never go below 0, as if they were in [0, 1]; store 2 x - 1, or uint8"
            )
        self.count = self.num_videos = len(self._paths)
        self.frames, self.size, self.channels = frames or shape[0], shape[1], shape[3]

    def read(self, number: int) -> Tensor:
        """(t, c, h, w).  Raises: EvaluationError when floats leave [-1, 1]."""
        clip = torch.from_numpy(np.load(self._paths[number], allow_pickle=False)[: self.frames]).permute(0, 3, 1, 2)
        if clip.is_floating_point():
            low, high = clip.min().item(), clip.max().item()
            if not (low >= -1 and high <= 1):
                raise EvaluationError(
                    f"{self._paths[number]} reaches from {low:g} to {high:g}; floats are in [-1, 1] "
                    "(x / 127.5 - 1 of 0..255), or store uint8"
                )
        return clip


def open_set(
    data: DataConfig,
    *,
    split: Split,
    count: int | None,
    frames: int | None,
    size: int | None,
    seed: int,
    first: int = 0,
) -> ClipSet:
    """The clips of a source: arrays of floats as they are, of anything else crops.

    Args:
        data: the source, and what a run was told about it, its stride for one; frames and size are those below.
        count: of clips; None takes one of each video.
        frames: of a clip; None where all videos have one length, which is then taken.
        size: in pixels; None takes the size that the videos have.
        seed: of the crops.
        first: the first crop, where others were taken for another set.
    Raises:
        DataError: nothing there, or no video long enough.
        EvaluationError: videos of several lengths or sizes where one was needed, or smaller ones than `size`.
    """
    source = data.source
    if builtin(source) == "mazes":
        items: list[Item] = []
    elif is_cache(locate(source)):
        items, size = [], size or read_meta(locate(source))["size"]
    else:
        items = find_items(locate(source))
    if items and all(_holds_floats(item.path) for item in items):
        if first:
            raise EvaluationError(f"{source} holds arrays of floats, of which no second set of crops can be cut")
        return Arrays(source, [item.path for item in items][:count], frames)
    if items:
        size = _size(source, items, size)
    config = data.replace(frames=frames or 1, size=size or data.size, short="drop")
    if frames is None:
        lengths = open_clips(config, split=split).videos.lengths
        if len(set(lengths)) > 1:
            raise EvaluationError(
                f"the videos of {source} have {min(lengths)} to {max(lengths)} frames; choose with --frames"
            )
        config = config.replace(frames=(lengths[0] - 1) // data.stride + 1)
    clips = open_clips(config, split=split)
    return Crops(clips, count or clips.num_videos, seed=seed, first=first)


def _size(source: str, items: list[Item], wanted: int | None) -> int:
    """The size to decode at: the wanted one where no video is smaller, else the one that all have."""
    shapes: dict[int, str] = {}
    for item in items:
        with suppress(UnreadableVideo):  # left out, and told of, when the rest is decoded
            first = next(recordings(item.path, 1))  # which knows its size before a frame is decoded
            shapes[min(first.height, first.width)] = item.name
    if not shapes:
        raise EvaluationError(f"nothing in {source} can be decoded; look at it with: zoo data inspect {source}")
    if wanted is None:
        if len(shapes) > 1:
            told = ", ".join(f"{name} of {edge}" for edge, name in list(shapes.items())[:2])
            raise EvaluationError(f"the videos of {source} differ in size ({told} pixels); compare videos of one size")
        return next(iter(shapes))
    if min(shapes) < wanted:
        raise EvaluationError(
            f"{source} has videos of {min(shapes)} pixels, such as {shapes[min(shapes)]}, and the clips to compare "
            f"have {wanted}; enlarging would blur one side only"
        )
    return wanted


def _holds_floats(path: Path) -> bool:
    return path.suffix == ".npy" and _mapped(path).dtype.kind == "f"


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise EvaluationError(f"{path} is no npy file, or is damaged ({error})") from error
