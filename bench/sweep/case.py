"""`Case`: one setup to measure, as a frozen value; and the expansion of command-line options into cases.  No torch."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from temporal_zoo.config import Config, ConfigError, option
from temporal_zoo.registry import get, names
from temporal_zoo.spec import MixerSpec

LEVELS = ("mixer", "model")
MODES = ("forward", "train", "sample")
BOTH = ("forward", "train")
DTYPES = ("float32", "bfloat16", "float16")

ROWS = 64
DIM = 64
# Upper limits: no machine can hold more, and byte counts must fit into 64 bits.
MOST_FRAMES = 2**24
MOST_VALUES = 2**40  # rows x frames x width
MOST_PIXELS = 2**20  # clips x height x width
MOST_PLANNED = 2**18  # frames of a clip in a plan


@dataclass(frozen=True, kw_only=True)
class Case(Config):
    """One setup to measure.  Fields that do not apply to the level are None, so that equal cases compare equal.

    At the level `mixer` the input of a bare mixer is (rows, frames, dim).  Either rows are the same for every number of
    frames, or `total` = rows x frames is.  At the level `model` the input of the whole denoiser is (clips, frames,
    channels, size, size); its rows are clips x height x width at each of its resolutions.
    """

    mixer: str
    level: Literal["mixer", "model"]
    mode: Literal["forward", "train", "sample"]
    frames: int = option(16, "number of frames", least=1, most=MOST_FRAMES)
    rows: int | None = option(None, "independent sequences, at the level mixer", least=1)
    total: int | None = option(None, "rows x frames, if it is the same at every length", least=1)
    dim: int | None = option(None, "width of the mixer, at the level mixer", least=1)
    preset: str | None = option(None, "preset of the denoiser, at the level model")
    clips: int | None = option(None, "clips at a time, at the level model", least=1)
    size: int | None = option(None, "height and width of a frame in pixels, at the level model", least=1)
    dtype: Literal["float32", "bfloat16", "float16"] = option("float32", "precision; 16-bit types run under autocast")
    device: str = option("cpu", "torch device")
    backends: tuple[str, ...] = option((), "pinned backends, each op=backend")

    def __post_init__(self) -> None:
        super().__post_init__()
        of_mixer, of_model = (self.rows, self.dim), (self.preset, self.clips, self.size)
        needed, strays = (of_mixer, of_model) if self.level == "mixer" else (of_model, (*of_mixer, self.total))
        if None in needed or any(value is not None for value in strays):
            raise ConfigError(
                f"a case of the level {self.level} needs "
                + ("rows and dim, without preset, clips and size" if self.level == "mixer" else
                   "preset, clips and size, without rows, dim and total")
            )  # fmt: skip
        if self.rows and self.dim and (count := self.rows * self.frames * self.dim) > MOST_VALUES:
            raise ConfigError(f"rows x frames x width are {count:,} values; the limit is {MOST_VALUES:,}")
        if self.clips and self.size:
            check_pixels(self.clips, self.size)

    @property
    def pins(self) -> dict[str, str]:
        """Op -> the backend that it is pinned to."""
        return dict(pin.split("=") for pin in self.backends)

    @property
    def setting(self) -> str:
        """All fields except mode, mixer and frames, in words: the cases of one curve share it."""
        if self.level == "mixer":
            rows = f"{self.rows} rows" if self.total is None else f"{self.total} frames in all rows"
            subject = f"bare mixer, {rows}, width {self.dim}"
        else:
            subject = f"whole model ({self.preset}), {_count(self.clips, 'clip')} of {self.size}x{self.size} pixels"
        pinned = f", {' '.join(self.backends)}" if self.backends else ""
        return f"{subject}, {self.dtype}, {self.device}{pinned}"

    @property
    def label(self) -> str:
        """A readable file name that is different for every case."""
        fields = json.dumps(self.to_dict(), sort_keys=True).encode()
        words = "-".join((self.level, self.mode, self.mixer, str(self.frames)))
        return f"{re.sub('[^a-z0-9]+', '-', words)}-{hashlib.blake2b(fields, digest_size=4).hexdigest()}"

    def __str__(self) -> str:
        return f"{self.level} {self.mode} {self.mixer} {_count(self.frames, 'frame')}"


def expand(
    *,
    layers: str,
    lengths: str,
    level: str = "both",
    mode: str = "both",
    rows: int | None = None,
    total: int | None = None,
    dim: int | None = None,
    preset: str = "tiny",
    size: int = 16,
    dtype: str = "float32",
    device: str = "cpu",
    backends: Iterable[str] = (),
) -> list[Case]:
    """All cases of the options, in ascending length within each curve.

    Args:
        layers: mixer specs separated by commas, "attn,bimamba:state=32".
        lengths: numbers of frames separated by commas, "16,64,256".
        level: one of `LEVELS`, or "both".
        mode: one of `MODES`; "both" for a forward pass and a training step; "all" also for the model's sampling step.
        rows, dim: of the bare mixer; by default `ROWS` and `DIM`.
        total: rows x frames of the bare mixer, instead of rows.
        preset, size: of the whole model.
        dtype: one or more of `DTYPES`, separated by commas.
        backends: pins, each "op=backend", or "op=backend,backend" for each in turn.
    Raises:
        ConfigError: a value cannot be used; the message says what would work.
        UnknownMixer: no such mixer.
    """
    if level == "model" and (rows is not None or dim is not None or total is not None):
        raise ConfigError("--rows, --total and --dim are for a bare mixer; a whole model has a preset and a size")
    if level == "mixer" and mode == "sample":
        raise ConfigError("a bare mixer has no sampling step; use --level model, or --mode forward")
    if rows is not None and total is not None:
        raise ConfigError("use one of --rows (the same at every length) and --total (rows x frames are the same)")
    mixers, frames, pins = parse_layers(layers), parse_lengths(lengths), list(_pins(backends))
    modes = {"both": BOTH, "all": MODES}.get(mode, (mode,))

    def shape(where: str, length: int) -> dict[str, object]:
        if where == "model":
            return {"preset": preset, "clips": 1, "size": size}
        count = (ROWS if rows is None else rows) if total is None else max(1, round(min(total, MOST_VALUES) / length))
        return {"rows": count, "total": total, "dim": DIM if dim is None else dim}

    return [
        Case(mixer=mixer, level=where, mode=how, frames=length, dtype=precision, device=device,  # type: ignore[arg-type]
             backends=pinned, **shape(where, length))  # type: ignore[arg-type]
        for where in (LEVELS if level == "both" else (level,))
        for how in modes
        if (where, how) != ("mixer", "sample")
        for precision in _dtypes(dtype)
        for pinned in pins
        for mixer in mixers
        for length in frames
    ]  # fmt: skip


def parse_layers(text: str) -> list[str]:
    """The mixer specs of "attn,bimamba:state=32", without repeats.  Checks options, which imports the mixer."""
    specs = [MixerSpec.parse(part) for part in text.split(",") if part.strip()]
    if not specs:
        raise ConfigError(f"{text!r} names no mixer; choose from {', '.join(names())}")
    for spec in specs:
        if spec.options:
            spec.config()
        elif spec.name not in names():
            get(spec.name)
    return list(dict.fromkeys(map(str, specs)))


def check_pixels(clips: int, size: int) -> None:
    """Checks that a device can hold the batch.  Raises: ConfigError."""
    if (count := clips * size * size) > MOST_PIXELS:
        raise ConfigError(f"{clips:,} clips of {size:,} x {size:,} are {count:,} pixels; the limit is {MOST_PIXELS:,}")


def parse_lengths(text: str, *, most: int = MOST_FRAMES) -> list[int]:
    """The numbers of frames of "16,64,256", ascending, without repeats; `most` is the upper limit."""
    lengths = set()
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            length = int(part)
        except ValueError:
            raise ConfigError(f"{part!r} is not a number of frames; write whole numbers such as 16,64,256") from None
        if length < 1:
            raise ConfigError(f"{length} frames cannot be measured; a length is a whole number of at least 1")
        if length > most:
            raise ConfigError(f"{length} frames are too many; the limit is {most}")
        lengths.add(length)
    if not lengths:
        raise ConfigError(f"{text!r} has no length; write whole numbers such as 16,64,256")
    return sorted(lengths)


def _dtypes(text: str) -> list[str]:
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    if not wanted or (unknown := [part for part in wanted if part not in DTYPES]):
        name = ", ".join(unknown) if wanted else repr(text)
        raise ConfigError(f"unknown precision {name}; choose from {', '.join(DTYPES)}")
    return list(dict.fromkeys(wanted))


def _pins(texts: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """All combinations of one backend per op: "a=x,y" and "b=z" give (a=x, b=z) and (a=y, b=z)."""
    choices = []
    for text in texts:
        op, _, backends = text.partition("=")
        if not (op and backends) or "=" in backends or not all(backends.split(",")):
            raise ConfigError(f"{text!r} does not pin a backend; write op=backend, such as selective_scan=torch")
        choices.append([f"{op}={backend}" for backend in backends.split(",")])
    yield from itertools.product(*choices)


def _count(number: int | None, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
