"""Where clips come from: how their files were stored, what was cropped, and how the two sides differ in this.

Compression, resizing and frame rates change every measure.  The effect of a difference between the two sides cannot be
removed from the number, so the report names the difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion.data import VideoFile

DRAWN = "drawn by the model"
RENDERED = "rendered"
_LOSSLESS_ENDINGS = (".npy", ".npz")
_MONTAGE, _SHEET = "all.gif", "sheet.png"  # `zoo sample` writes these beside the clips


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The files that the clips of a set were cut from.

    stored: how files are stored -> number of files.
    lossy: whether the encoding of some files changed pixels.
    sizes: "height x width" -> number of files; empty if the files are not available.
    rates: frames per second of the clips -> number of files, among files that store a rate.
    lengths: frames of the shortest and of the longest video that clips are cut from.
    windows: whether clips start at a random frame; otherwise at the first frame.
    too_short, unreadable: numbers of videos left out because they are shorter than a clip, or cannot be decoded.
    doubles: names of files left out because another file shows the same clip.
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
    def of(cls, files: Iterable[VideoFile], *, stride: int = 1, **facts: Any) -> Origin:
        """The origin of clips that were cut from these files; `facts` are the fields that the files do not contain."""
        all_files = [file.stored for file in files]
        readable = [stored for stored in all_files if stored is not None]
        return cls(
            stored=Counter(stored.how for stored in readable),
            lossy=not all(stored.lossless for stored in readable),
            sizes=Counter(f"{stored.height} x {stored.width}" for stored in readable),
            rates=Counter(f"{stored.fps / stride:.4g}" for stored in readable if stored.fps is not None),
            unreadable=len(all_files) - len(readable),
            **facts,
        )

    @classmethod
    def of_names(cls, names: Iterable[str], **facts: Any) -> Origin:
        """The origin of clips whose files are gone: only the extensions of their names are known."""
        endings = Counter(Path(name.partition("#")[0]).suffix.lower() for name in names)
        lossy = any(ending not in _LOSSLESS_ENDINGS for ending in endings)
        return cls(stored={f"{ending or 'frames'} files": n for ending, n in endings.items()}, lossy=lossy, **facts)

    def sentence(self, frames: int, size: int) -> str:
        """Says how clips of `frames` frames and `size` pixels are cut from the files."""
        parts = [_counted(self.stored)]
        parts += [_cut(edges, number, size) for edges, number in self.sizes.items()][:3]
        low, high = self.lengths
        if high > frames:
            where = "a window at a random position" if self.windows else "the start"
            parts.append(f"{frames} frames of {_range(low, high)}, {where}")
        if self.too_short:
            parts.append(f"{_number(self.too_short, 'video')} left out, shorter than a clip")
        if self.unreadable:
            parts.append(f"{_number(self.unreadable, 'file')} left out, cannot be decoded")
        if self.doubles:
            files = _number(len(self.doubles), "file")
            parts.append(f"{files} left out, other files show the same clips ({_few(self.doubles)})")
        return "; ".join(filter(None, parts))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        mappings = {name: dict(getattr(self, name)) for name in ("stored", "sizes", "rates")}
        return vars(self) | mappings | {"lengths": list(self.lengths), "doubles": list(self.doubles)}


def differences(real: Origin, fake: Origin) -> list[str]:
    """Says how the files of two sides differ, one sentence for each difference; none for samples of a model.

    A model was trained on decoded, cropped and resized clips, so its samples compare with real clips directly.
    """
    if DRAWN in fake.stored:
        return []
    sentences = []
    if real.lossy != fake.lossy:
        words = {True: "lossy", False: "lossless"}
        sentences.append(
            f"real clips are {words[real.lossy]} ({_few(real.stored)}), generated ones {words[fake.lossy]} "
            f"({_few(fake.stored)}). Compression alone causes a distance: six clips as mp4 (crf 23, 4:2:0, 32 x 32 "
            "pixels) were at FVD 159 from the same clips as arrays, and six others at 232. Store both sides equally"
        )
    elif real.lossy and set(real.stored) != set(fake.stored):
        sentences.append(_unlike("codecs", real.stored, fake.stored, "Compression alone causes a distance"))
    if real.sizes and fake.sizes and set(real.sizes) != set(fake.sizes):
        sentences.append(_unlike("sizes of pictures", real.sizes, fake.sizes, "Resizing makes one side smoother"))
    if real.rates and fake.rates and set(real.rates) != set(fake.rates):
        sentences.append(_unlike("frames per second", real.rates, fake.rates, "Motion has a different speed"))
    if real.lengths != fake.lengths:
        lengths = [[_range(*side.lengths)] for side in (real, fake)]
        sentences.append(
            _unlike("numbers of frames", lengths[0], lengths[1], "Clips may show different parts of a video")
        )
    return sentences


def one_file_per_clip(files: Iterable[VideoFile]) -> tuple[list[VideoFile], list[VideoFile]]:
    """Separates files from their duplicates, which have the same folder and the same name with another extension.

    An array is preferred to a folder of frames, that to a video, and that to a gif, which has 256 colours.  The montage
    of `zoo sample`, recognised by the sheet beside it, is not a clip and counts as a duplicate.

    Returns:
        The files to read, and the duplicates.
    """
    clips: dict[tuple[Path, str], list[VideoFile]] = {}
    left_out = []
    for file in files:
        if file.path.name == _MONTAGE and file.path.with_name(_SHEET).exists():
            left_out.append(file)
        else:
            stem = file.path.name if file.path.is_dir() else file.path.stem
            clips.setdefault((file.path.parent, stem), []).append(file)
    chosen = []
    for same in clips.values():
        first, *others = sorted(same, key=_preference) if len(same) > 1 else same
        chosen.append(first)
        left_out += others
    return chosen, left_out


def _preference(file: VideoFile) -> tuple[bool, int]:
    """A sort key: smaller is better."""
    kind = 0 if file.is_array else 1 if file.path.is_dir() else 3 if file.path.suffix.lower() == ".gif" else 2
    return file.stored is None, kind  # an array beside a video may hold something else, such as actions


def _cut(edges: str, number: int, size: int) -> str:
    """Says how pictures of one size are cropped and resized."""
    height, width = map(int, edges.split(" x "))
    edge = min(height, width)
    steps = []
    if height != width:
        steps.append(f"cropped to the centre square, {1 - edge / max(height, width):.0%} cut off")
    if edge != size:
        steps.append(f"resized to {size} x {size}")
    return f"{number} of {edges} pixels" + "".join(f", {step}" for step in steps)


def _unlike(what: str, real: Iterable[str], fake: Iterable[str], consequence: str) -> str:
    return f"{what} differ: {_few(real)} for real clips, {_few(fake)} for generated clips. {consequence}"


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items())


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _few(words: Iterable[str]) -> str:
    listed = list(words)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
