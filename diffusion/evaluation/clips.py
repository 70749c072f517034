"""Sets of clips of one length and size: cut from videos, or arrays that a sampler wrote.

Letters: t frames, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diffusion.data import DataConfig, Split, VideoFile, open_source
from diffusion.data.clips import ClipSource
from diffusion.evaluation import EvaluationError
from diffusion.evaluation.origin import RENDERED, Origin, one_file_per_clip

_CHECKED = 8  # number of clips whose range is checked when a set is opened; the others are checked when they are read


class ClipSet(Protocol):
    """Clips, numbered from 0.

    name: for tables.
    count: number of clips.
    frames, size, channels: of every clip; size is height and width in pixels.
    videos: for every clip the video that it was cut from; clips of one video are not independent.
    num_videos: number of different videos.
    origin: how the files of the clips were stored.
    """

    name: str
    count: int
    frames: int
    size: int
    channels: int
    videos: list[str]
    num_videos: int
    origin: Origin

    def read(self, number: int) -> Tensor:
        """Reads a clip: (t, c, h, w) uint8, or floats in [-1, 1]."""
        ...


class Crops:
    """Clips `first` to `first + count` of a source: takes the videos in turn, each time at a new random window.

    Raises:
        EvaluationError: the source does not have so many different clips.
    """

    def __init__(self, source: ClipSource, count: int, origin: Origin, *, seed: int, first: int = 0) -> None:
        if (most := source.num_videos * source.num_rounds) < first + count:
            raise EvaluationError(
                f"{source.config.source} gives {most} different clips of {source.config.frames} frames, equally many "
                f"from each of its {source.num_videos} videos, and {first + count} are needed; choose fewer clips"
            )
        self.name, self.count, self.frames = source.config.source, count, source.config.frames
        self.size, self.channels, self.origin = source.size, source.channels, origin
        self.videos = [source.video_of_crop(number, seed) for number in range(first, first + count)]
        self.num_videos = len(set(self.videos))
        self._source, self._seed, self._first = source, seed, first

    def read(self, number: int) -> Tensor:
        """Reads a clip: (t, c, h, w) uint8."""
        return self._source.crop(self._first + number, self._seed).pixels


class Arrays:
    """npy files with one clip each, (t, h, w, c): uint8, or floats in [-1, 1].

    Args:
        name: for tables.
        paths: of the files.
        frames: longer clips are cut to this length; None for no cut.
        how: how the clips were stored, for reports.
        duplicates: names of files that show the same clips.

    Raises:
        EvaluationError: there are no files, or they differ in shape or type.
    """

    def __init__(
        self,
        name: str,
        paths: Iterable[Path],
        frames: int | None = None,
        *,
        how: str = "",
        duplicates: Sequence[str] = (),
    ) -> None:
        self.name, self._paths = name, list(paths)
        if not self._paths:
            raise EvaluationError(f"{name} holds no npy files")
        kinds = {(array.shape, array.dtype.name): path for path in self._paths for array in [_mapped(path)]}
        if len(kinds) > 1:
            examples = "; ".join(f"{path.name} is {kind} {shape}" for (shape, kind), path in list(kinds.items())[:2])
            raise EvaluationError(f"the clips in {name} differ: {examples}; compare clips of one shape and type")
        ((shape, kind),) = kinds
        if len(shape) != 4 or shape[3] not in (1, 3) or shape[1] != shape[2]:
            raise EvaluationError(f"clips in {name} are {shape}; store (frames, size, size, 1 or 3 channels)")
        if kind not in ("uint8", "float16", "float32", "float64"):
            raise EvaluationError(f"clips in {name} are {kind}; store uint8, or floats in [-1, 1]")
        if frames is not None and frames > shape[0]:
            raise EvaluationError(f"clips in {name} have {shape[0]} frames, not {frames}; choose fewer")
        if kind != "uint8" and all(_mapped(path).min() >= 0 for path in self._paths[:_CHECKED]):
            raise EvaluationError(
                f"the floats in {name} are never below 0, so they may be in [0, 1]; store 2 x - 1, or uint8"
            )
        self.count = self.num_videos = len(self._paths)
        self.videos = [str(path) for path in self._paths]
        self.frames, self.size, self.channels = frames or shape[0], shape[1], shape[3]
        self.origin = Origin(
            stored={how or f"{kind} arrays": self.count}, sizes={f"{shape[1]} x {shape[2]}": self.count},
            lengths=(shape[0], shape[0]), doubles=tuple(duplicates),
        )  # fmt: skip

    def read(self, number: int) -> Tensor:
        """Reads a clip: (t, c, h, w).

        Raises:
            EvaluationError: floats are outside [-1, 1].
        """
        clip = torch.from_numpy(np.load(self._paths[number], allow_pickle=False)[: self.frames]).permute(0, 3, 1, 2)
        if clip.is_floating_point():
            low, high = clip.min().item(), clip.max().item()
            if not (low >= -1 and high <= 1):
                raise EvaluationError(
                    f"{self._paths[number]} has values from {low:g} to {high:g}; store floats in [-1, 1] "
                    "(x / 127.5 - 1 for x in 0..255), or uint8"
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
    """Opens the clips of a source: arrays of floats as they are; otherwise crops of videos.

    Args:
        data: the source and the settings of a run, such as its stride; the arguments below replace frames and size.
        split: which videos.
        count: number of clips; None for one clip of each video.
        frames: of a clip; None for the length of the videos, if all have the same.
        size: in pixels; None for the size of the videos.
        seed: of the crops.
        first: the first crop, if another set takes the crops before it.

    Raises:
        DataError: the source is missing, or no video is long enough.
        EvaluationError: the videos differ in length or size and none was given, or they are smaller than `size`.
    """
    name = data.source
    source = open_source(name)
    files, duplicates = one_file_per_clip(source.files)
    without = tuple(file.name for file in duplicates)
    if source.decoded_size is not None:
        size = size or source.decoded_size
    elif files and all(_holds_floats(file.path) for file in files):
        if first:
            raise EvaluationError(f"{name} holds arrays of floats, from which no second set of crops can be cut")
        return Arrays(name, [file.path for file in files][:count], frames, duplicates=without)
    elif files:
        size = _size(name, files, size)
    config = data.replace(frames=frames or 1, size=size or data.size, short="drop")
    videos = source.videos(config, split, without=without)
    if frames is None and videos.lengths:
        low, high = min(videos.lengths), max(videos.lengths)
        if low != high:
            raise EvaluationError(f"the videos of {name} have {low} to {high} frames; choose with --frames")
        config = config.replace(frames=(low - 1) // data.stride + 1)
    clips = ClipSource(videos, config, split=split)
    lengths = [length for length in videos.lengths if length >= config.span]
    facts: dict[str, Any] = {
        "lengths": (min(lengths), max(lengths)), "windows": max(lengths) > config.span,
        "too_short": len(videos.names) - len(lengths), "doubles": without,
    }  # fmt: skip
    if source.rendered:
        origin = Origin(stored={RENDERED: len(videos.names)}, **facts)
    else:
        origin = _origin(files, videos.names, config.stride, facts)
    return Crops(clips, count or clips.num_videos, origin, seed=seed, first=first)


def _origin(files: list[VideoFile], names: list[str], stride: int, facts: dict[str, Any]) -> Origin:
    """The origin of clips that were cut from the videos with these names."""
    if not files:
        return Origin.of_names(names, **facts)
    known = set(names)
    used = [file for file in files if file.name in known or file.stored is None]
    return Origin.of(used, stride=stride, **facts)


def _size(source: str, files: list[VideoFile], wanted: int | None) -> int:
    """The size for decoding: `wanted` if no video is smaller; for None, the size that all videos have."""
    shapes: dict[int, str] = {}
    for file in files:
        if stored := file.stored:
            shapes[min(stored.height, stored.width)] = file.name
    if not shapes:
        raise EvaluationError(f"no file in {source} can be decoded; for the reasons, run: zoo data inspect {source}")
    if wanted is None:
        if len(shapes) > 1:
            examples = ", ".join(f"{name} of {edge}" for edge, name in list(shapes.items())[:2])
            raise EvaluationError(
                f"the videos of {source} differ in size ({examples} pixels); compare videos of one size"
            )
        return next(iter(shapes))
    if min(shapes) < wanted:
        raise EvaluationError(
            f"{source} has videos of {min(shapes)} pixels, such as {shapes[min(shapes)]}, and the clips to compare "
            f"have {wanted}; enlarging would blur only one side"
        )
    return wanted


def _holds_floats(path: Path) -> bool:
    return path.suffix == ".npy" and _mapped(path).dtype.kind == "f"


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise EvaluationError(f"{path} is not an npy file, or is damaged ({error})") from error
