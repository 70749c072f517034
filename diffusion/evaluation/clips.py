"""Sets of clips of one length and size: cut from videos, or arrays as a sampler left them.

Letters: t frames, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diffusion.data import DataConfig
from diffusion.data.build import is_cache, read_meta
from diffusion.data.config import Split
from diffusion.data.layout import Item, builtin, find_items, locate
from diffusion.data.source import ClipSource, Videos, open_videos
from diffusion.evaluation import EvaluationError
from diffusion.evaluation.origin import RENDERED, Origin, one_file_per_clip, stored

_LOOKED_AT = 8  # clips whose range is looked at when a set is opened; that of all others when they are read


class ClipSet(Protocol):
    """Some clips, by number from 0.

    name: for tables.  frames, size, channels: of every clip.  videos: of every clip, the video that it was cut from;
    clips of one video are not independent.  num_videos: how many different ones.  origin: of the files.
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
        """(t, c, h, w) uint8, or floats in [-1, 1]."""
        ...


class Crops:
    """Clips `first` to `first + count` of a source: every video in turn, each time at another random window.

    Raises: EvaluationError when clips would come twice.
    """

    def __init__(self, source: ClipSource, count: int, origin: Origin, *, seed: int, first: int = 0) -> None:
        if (most := source.num_videos * source.num_rounds) < first + count:
            raise EvaluationError(
                f"{source.config.source} gives {most} different clips of {source.config.frames} frames, a turn of each "
                f"of its {source.num_videos} videos at a time, and {first + count} are asked for; ask for fewer clips"
            )
        self.name, self.count, self.frames = source.config.source, count, source.config.frames
        self.size, self.channels, self.origin = source.size, source.channels, origin
        self.videos = [source.video_of_crop(number, seed) for number in range(first, first + count)]
        self.num_videos = len(set(self.videos))
        self._source, self._seed, self._first = source, seed, first

    def read(self, number: int) -> Tensor:
        """(t, c, h, w) uint8."""
        return self._source.crop(self._first + number, self._seed).pixels


class Arrays:
    """npy files with a clip each, (t, h, w, c): uint8, or floats in [-1, 1].  Longer ones are cut at `frames`.

    how: where they come from, for reports.  doubles: files that show the same clips.
    Raises: EvaluationError when there is none, or they differ in shape or type.
    """

    def __init__(
        self, name: str, paths: Iterable[Path], frames: int | None = None, *, how: str = "", doubles: Sequence[str] = ()
    ) -> None:
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
        self.videos = [str(path) for path in self._paths]
        self.frames, self.size, self.channels = frames or shape[0], shape[1], shape[3]
        self.origin = Origin(
            stored={how or f"{kind} arrays": self.count}, sizes={f"{shape[1]} x {shape[2]}": self.count},
            lengths=(shape[0], shape[0]), doubles=tuple(doubles),
        )  # fmt: skip

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
    items, doubles = _items(source)
    if builtin(source) != "mazes" and is_cache(locate(source)):
        size = size or read_meta(locate(source))["size"]
    elif items and all(_holds_floats(item.path) for item in items):
        if first:
            raise EvaluationError(f"{source} holds arrays of floats, of which no second set of crops can be cut")
        names = tuple(item.name for item in doubles)
        return Arrays(source, [item.path for item in items][:count], frames, doubles=names)
    elif items:
        size = _size(source, items, size)
    config = data.replace(frames=frames or 1, size=size or data.size, short="drop")
    videos = _Without(open_videos(config, split), doubles)
    if frames is None and videos.lengths:
        low, high = min(videos.lengths), max(videos.lengths)
        if low != high:
            raise EvaluationError(f"the videos of {source} have {low} to {high} frames; choose with --frames")
        config = config.replace(frames=(low - 1) // data.stride + 1)
    clips = ClipSource(videos, config, split=split)
    return Crops(clips, count or clips.num_videos, _origin(clips, items, doubles), seed=seed, first=first)


class _Without:
    """Videos without those of some items; see `diffusion.data.source.Videos`."""

    def __init__(self, videos: Videos, items: Iterable[Item]) -> None:
        names = [item.name for item in items]
        self._videos = videos
        self._kept = [number for number, name in enumerate(videos.names) if not any(_is_of(name, i) for i in names)]
        self.channels, self.size, self.fps = videos.channels, videos.size, videos.fps
        self.names = [videos.names[number] for number in self._kept]
        self.lengths = [videos.lengths[number] for number in self._kept]
        self.rates = [videos.rates[number] for number in self._kept]

    @property
    def contents(self) -> dict[str, str]:
        """A digest of each video's frames, by name."""
        return {name: digest for name, digest in self._videos.contents.items() if name in self.names}

    def read(self, video: int, frames: slice) -> np.ndarray:
        """Frames of one video, (frames, height, width, channels) uint8."""
        return self._videos.read(self._kept[video], frames)


def _items(source: str) -> tuple[list[Item], list[Item]]:
    """The items of a source to read, and those that show the same clips; none where it has no files any more."""
    if builtin(source) == "mazes":
        return [], []
    folder = locate(source)
    if is_cache(folder):
        folder = Path(read_meta(folder)["source"])
        if not folder.exists():
            return [], []
    return one_file_per_clip(find_items(folder))


def _is_of(video: str, item: str) -> bool:
    """Whether a video is one of an item's: of several, those after the first have a number behind their name."""
    return video == item or video.startswith(f"{item}#")


def _origin(clips: ClipSource, items: list[Item], doubles: list[Item]) -> Origin:
    names, config = clips.videos.names, clips.config
    lengths = [length for length in clips.videos.lengths if length >= config.span]
    facts: dict[str, Any] = {
        "lengths": (min(lengths), max(lengths)), "windows": max(lengths) > config.span,
        "too_short": len(names) - len(lengths), "doubles": tuple(item.name for item in doubles),
    }  # fmt: skip
    if builtin(config.source) == "mazes":
        return Origin(stored={RENDERED: len(names)}, **facts)
    if not items:
        return Origin.of_names(names, **facts)
    known = set(names)
    used = [item for item in items if item.name in known or stored(item) is None]
    return Origin.of(used, stride=config.stride, **facts)


def _size(source: str, items: list[Item], wanted: int | None) -> int:
    """The size to decode at: the wanted one where no video is smaller, else the one that all have."""
    shapes: dict[int, str] = {}
    for item in items:
        if found := stored(item):
            shapes[min(found.height, found.width)] = item.name
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
