"""`Case`: one thing to measure, as a frozen value; and the expansion of command-line texts into cases.  Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from temporal_zoo.config import Config, ConfigError, option
from temporal_zoo.registry import get, names
from temporal_zoo.spec import MixerSpec

LEVELS = ("mixer", "model")
MODES = ("forward", "train")
DTYPES = ("float32", "bfloat16", "float16")

ROWS = 64
DIM = 64


@dataclass(frozen=True, kw_only=True)
class Case(Config):
    """What is measured.  Fields that mean nothing at a case's level are None, so that equal cases compare equal.

    At the level `mixer` a bare mixer sees (rows, frames, dim), rows the same for every number of frames; at the level
    `model` the whole denoiser sees (clips, frames, channels, size, size), and its rows are clips x height x width at
    each of its resolutions.
    """

    mixer: str
    level: Literal["mixer", "model"]
    mode: Literal["forward", "train"]
    frames: int = option(16, "number of frames", least=1)
    rows: int | None = option(None, "independent sequences, at the level mixer", least=1)
    dim: int | None = option(None, "width of the mixer, at the level mixer", least=1)
    preset: str | None = option(None, "preset of the denoiser, at the level model")
    clips: int | None = option(None, "clips at a time, at the level model", least=1)
    size: int | None = option(None, "height and width of a frame in pixels, at the level model", least=1)
    dtype: Literal["float32", "bfloat16", "float16"] = option("float32", "precision; the short ones run under autocast")
    device: str = option("cpu", "where it runs, as torch names it")
    backends: tuple[str, ...] = option((), "pinned bodies, each op=body")

    @property
    def pins(self) -> dict[str, str]:
        """Op -> the body that it is pinned to."""
        return dict(pin.split("=") for pin in self.backends)

    @property
    def setting(self) -> str:
        """Everything but mixer and frames, in words: the cases of one curve share it."""
        if self.level == "mixer":
            what = f"bare mixer, {self.rows} rows, width {self.dim}"
        else:
            what = f"whole model ({self.preset}), {_count(self.clips, 'clip')} of {self.size}x{self.size} pixels"
        pinned = f", {' '.join(self.backends)}" if self.backends else ""
        return f"{what}, {self.dtype}, {self.device}{pinned}"

    def __str__(self) -> str:
        return f"{self.level} {self.mode} {self.mixer} {_count(self.frames, 'frame')}"


def expand(
    *,
    layers: str,
    lengths: str,
    level: str = "both",
    mode: str = "both",
    rows: int | None = None,
    dim: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    backends: Iterable[str] = (),
) -> list[Case]:
    """All cases that the options ask for, short ones first within each curve.

    Args:
        layers: mixer specs separated by commas, "attn,bimamba:state=32".
        lengths: numbers of frames separated by commas, "16,64,256".
        level, mode: one of `LEVELS` and `MODES`, or "both".
        rows, dim: of the bare mixer; `ROWS` and `DIM` unless given.
        backends: pins, each "op=body".
    Raises:
        ConfigError: a value that cannot be used; the message says what would be accepted.
        UnknownMixer: no such mixer.
    """
    if level == "model" and (rows is not None or dim is not None):
        raise ConfigError("rows and width are those of a bare mixer; the whole model's follow from its preset and size")
    common = {"dtype": dtype, "device": device, "backends": tuple(map(_pin, backends))}
    places = {
        "mixer": {"rows": ROWS if rows is None else rows, "dim": DIM if dim is None else dim},
        "model": {"preset": "tiny", "clips": 1, "size": 16},
    }
    mixers, frames = parse_layers(layers), parse_lengths(lengths)
    return [
        Case(mixer=mixer, level=where, mode=how, frames=length, **places[where], **common)  # type: ignore[arg-type]
        for where in (LEVELS if level == "both" else (level,))
        for how in (MODES if mode == "both" else (mode,))
        for mixer in mixers
        for length in frames
    ]


def parse_layers(text: str) -> list[str]:
    """Mixer specs of "attn,bimamba:state=32", as written, each once; options are checked, which imports the mixer."""
    specs = [MixerSpec.parse(part) for part in text.split(",") if part.strip()]
    if not specs:
        raise ConfigError(f"{text!r} names no mixer; there are {', '.join(names())}")
    for spec in specs:
        if spec.options:
            spec.config()
        elif spec.name not in names():
            get(spec.name)
    return list(dict.fromkeys(map(str, specs)))


def parse_lengths(text: str) -> list[int]:
    """Numbers of frames of "16,64,256", ascending, each once."""
    lengths = set()
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            length = int(part)
        except ValueError:
            raise ConfigError(f"{part!r} is not a number of frames; write whole numbers such as 16,64,256") from None
        if length < 1:
            raise ConfigError(f"{length} frames cannot be measured; a length is a whole number of at least 1")
        lengths.add(length)
    if not lengths:
        raise ConfigError(f"{text!r} holds no length; write whole numbers such as 16,64,256")
    return sorted(lengths)


def _pin(text: str) -> str:
    op, _, body = text.partition("=")
    if not (op and body) or "=" in body:
        raise ConfigError(f"{text!r} pins no body; write op=body, such as selective_scan=torch")
    return text


def _count(number: int | None, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
