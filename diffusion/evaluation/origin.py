"""Where clips come from: how their files were stored, what was cut off them, and how two sides differ in that.

A measure sees compression, resizing and frame rates as it sees everything else.  A difference between the sides is part
of the number and cannot be taken out of it, so it is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from diffusion.data.readers import UnreadableVideo, recordings
from diffusion.data.search import ARRAYS, Item, images_of
from temporal_zoo._support.packages import need

DRAWN = "drawn by the model"
RENDERED = "rendered"
_EXACT_CODECS = frozenset({"ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "png", "apng", "qtrle", "rawvideo"})
_SUBSAMPLED = ("420", "422", "411", "410", "440", "nv12", "nv21")
_FOLDER, _ARRAYS = " frames", " arrays"
_MONTAGE, _SHEET = "all.gif", "sheet.png"  # what `zoo sample` writes beside the clips


@dataclass(frozen=True)
class Stored:
    """How one file holds its video.  how: "h264 yuv420p", "uint8 arrays".  fps: None where the file does not say."""

    how: str
    height: int
    width: int
    fps: float | None

    @property
    def lossless(self) -> bool:
        """Whether the pixels are those that were stored; a codec that can be either counts as lossy."""
        if self.how.endswith((_FOLDER, _ARRAYS)):
            return not self.how.startswith(("jpg", "jpeg"))
        codec, _, pixels = self.how.partition(" ")
        return codec in _EXACT_CODECS and not any(mark in pixels for mark in _SUBSAMPLED)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the clips of a set were before they were cut.

    stored: how files are stored -> number of files.  lossy: whether some of them changed pixels.
    sizes: "height x width" -> number of files; empty where the files are not at hand.
    rates: frames per second of the clips -> number of files; without files that do not say.
    lengths: frames of the shortest and of the longest video that clips are cut from.
    windows: whether clips are cut at random places; otherwise at the start.
    too_short, unreadable: numbers of videos left out because they are shorter than a clip, or cannot be decoded.
    doubles: files left out because they show what another file holds.
    """

    stored: Mapping[str, int]
    lengths: tuple[int, int]
    lossy: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, int] = field(default_factory=dict)
    windows: bool = False
    too_short: int = 0
    unreadable: int = 0
    doubles: tuple[str, ...] = ()

    @classmethod
    def of(cls, items: Iterable[Item], *, stride: int = 1, **facts: Any) -> Origin:
        """The origin of clips that were cut from these items; `facts` are the fields that files do not tell."""
        found = [stored(item) for item in items]
        files = [file for file in found if file is not None]
        return cls(
            stored=Counter(file.how for file in files),
            lossy=not all(file.lossless for file in files),
            sizes=Counter(f"{file.height} x {file.width}" for file in files),
            rates=Counter(f"{file.fps / stride:.4g}" for file in files if file.fps is not None),
            unreadable=len(found) - len(files),
            **facts,
        )

    @classmethod
    def of_names(cls, names: Iterable[str], **facts: Any) -> Origin:
        """The origin of clips whose files are gone: the endings of their names are known."""
        endings = Counter(Path(name.partition("#")[0]).suffix.lower() for name in names)
        lossy = any(ending not in ARRAYS for ending in endings)
        return cls(stored={f"{ending or 'frames'} files": n for ending, n in endings.items()}, lossy=lossy, **facts)

    def sentence(self, frames: int, size: int) -> str:
        """How clips of so many frames, and pixels along an edge, are made of the files."""
        told = [_counted(self.stored)]
        told += [_cut(edges, number, size) for edges, number in self.sizes.items()][:3]
        low, high = self.lengths
        if high > frames:
            where = "a window at a random place" if self.windows else "the start"
            told.append(f"{frames} frames of {_range(low, high)}, {where}")
        if self.too_short:
            told.append(f"{_number(self.too_short, 'video')} left out, shorter than a clip")
        if self.unreadable:
            told.append(f"{_number(self.unreadable, 'file')} left out, which cannot be decoded")
        if self.doubles:
            files = _number(len(self.doubles), "file")
            told.append(f"{files} left out, of clips that other files hold ({_few(self.doubles)})")
        return "; ".join(filter(None, told))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a record."""
        mappings = {name: dict(getattr(self, name)) for name in ("stored", "sizes", "rates")}
        return vars(self) | mappings | {"lengths": list(self.lengths), "doubles": list(self.doubles)}


def differences(real: Origin, fake: Origin) -> list[str]:
    """How the files of two sides differ, a sentence for each way; none for clips that a model drew.

    A model draws what it was trained on: decoded, cut and averaged, as real clips are.
    """
    if DRAWN in fake.stored:
        return []
    found = []
    if real.lossy != fake.lossy:
        words = {True: "lossy", False: "lossless"}
        found.append(
            f"real clips are {words[real.lossy]} ({_few(real.stored)}), generated ones {words[fake.lossy]} "
            f"({_few(fake.stored)}). Compression alone makes a distance: as mp4 (crf 23, 4:2:0, 32 x 32 pixels), six "
            "clips were at FVD 159 from themselves, and six others at 232. Store both sides in the same way"
        )
    elif real.lossy and set(real.stored) != set(fake.stored):
        found.append(_unlike("codecs", real.stored, fake.stored, "Compression alone makes a distance"))
    if real.sizes and fake.sizes and set(real.sizes) != set(fake.sizes):
        found.append(_unlike("sizes of pictures", real.sizes, fake.sizes, "Averaging makes one side smoother"))
    if real.rates and fake.rates and set(real.rates) != set(fake.rates):
        found.append(_unlike("frames per second", real.rates, fake.rates, "Things move at another speed"))
    if real.lengths != fake.lengths:
        lengths = [[_range(*side.lengths)] for side in (real, fake)]
        found.append(_unlike("numbers of frames", lengths[0], lengths[1], "Clips may show other parts of a video"))
    return found


def one_file_per_clip(items: Iterable[Item]) -> tuple[list[Item], list[Item]]:
    """The items to read, and those that show the clip of another one: same folder, same name but for its ending.

    Of several the array is read, then a folder of frames, then a video, last a gif, which has 256 colours.  The
    montage of `zoo sample`, known by the sheet beside it, is no clip.
    """
    clips: dict[tuple[Path, str], list[Item]] = {}
    left_out = []
    for item in items:
        if item.path.name == _MONTAGE and item.path.with_name(_SHEET).exists():
            left_out.append(item)
        else:
            stem = item.path.name if item.path.is_dir() else item.path.stem
            clips.setdefault((item.path.parent, stem), []).append(item)
    kept = []
    for same in clips.values():
        first, *others = sorted(same, key=_preference) if len(same) > 1 else same
        kept.append(first)
        left_out += others
    return kept, left_out


@cache
def stored(item: Item) -> Stored | None:
    """How an item is stored, from its header; None where it cannot be decoded."""
    try:
        first = next(recordings(item.path, 1))  # which knows its size before a frame is decoded
    except UnreadableVideo:  # left out, and told of, when the rest is decoded
        return None
    if item.path.is_dir():
        how = images_of(item.path)[0].suffix[1:].lower() + _FOLDER
        return Stored(how, first.height, first.width, None)
    if item.path.suffix.lower() in ARRAYS:
        return Stored(f"uint8{_ARRAYS}", first.height, first.width, None)
    return Stored(_codec(item.path), first.height, first.width, first.fps)


def _codec(path: Path) -> str:
    av = need("av", f"reading {path.name}")
    try:
        with av.open(str(path)) as container:
            codec = container.streams.video[0].codec_context
            return f"{codec.name} {codec.pix_fmt}"
    except (av.FFmpegError, OSError, IndexError):  # another reader took the file
        return f"{path.suffix[1:].lower()} video"


def _preference(item: Item) -> tuple[bool, int]:
    ending = item.path.suffix.lower()
    kind = 0 if ending in ARRAYS else 1 if item.path.is_dir() else 3 if ending == ".gif" else 2
    return stored(item) is None, kind  # an array beside a video may hold something else, as actions


def _cut(edges: str, number: int, size: int) -> str:
    """What becomes of a picture: the square in its centre, averaged."""
    height, width = map(int, edges.split(" x "))
    edge = min(height, width)
    steps = []
    if height != width:
        steps.append(f"cut to the centre square, {1 - edge / max(height, width):.0%} cut off")
    if edge != size:
        steps.append(f"averaged to {size} x {size}")
    return f"{number} of {edges} pixels" + "".join(f", {step}" for step in steps)


def _unlike(what: str, ours: Iterable[str], theirs: Iterable[str], therefore: str) -> str:
    return f"{what} differ: {_few(ours)} of real clips, {_few(theirs)} of generated ones. {therefore}"


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items())


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _few(words: Iterable[str]) -> str:
    listed = list(words)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
