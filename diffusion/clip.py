"""Clips: uint8 in files (`Clip`), floats in [-1, 1] in the model (`ClipBatch`).

Only this module maps 0..255 to [-1, 1] and back.  Letters: b clips, t frames, c channels, h height, w width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from temporal_zoo.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip of a file.

    pixels: (t, c, h, w) uint8 on the CPU, at least one frame.
    fps: frames per second, for playing it.
    label: class number, or None if the data has no classes.
    """

    pixels: torch.Tensor
    fps: float
    label: int | None = None

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8:
            raise InvalidInput(f"a Clip holds uint8 pixels, not {self.pixels.dtype}; to_uint8 converts from [-1, 1]")
        if self.pixels.dim() != 4 or 0 in self.pixels.shape:
            raise InvalidInput(
                f"a Clip is (frames, channels, height, width), none of them 0; got {_shape(self.pixels)}"
            )
        if self.pixels.device.type != "cpu":
            raise InvalidInput(f"a Clip is on the CPU, but its pixels are on {self.pixels.device}")
        if not 0 < self.fps < math.inf:
            raise InvalidInput(f"a Clip's fps must be positive and finite, not {self.fps}")

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.pixels.shape[0]


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """Clips in the form that the model takes, padded to one number of frames.

    values: (b, t, c, h, w) floating point in [-1, 1]; frames after the last real frame of a clip are zero.
    lengths: (b,) int64 on the CPU or the device of `values`: real frames of each clip; None if no clip is padded.
    labels: (b,) int64 class numbers, or None.

    The constructor checks all of this, so that later code need not.  It reads values only on the CPU; build the batch
    there and move it with `to`.  Lengths of which all frames are real become None.
    """

    values: torch.Tensor
    lengths: torch.Tensor | None = None
    labels: torch.Tensor | None = None

    def __post_init__(self) -> None:
        values = self.values
        if not values.is_floating_point():
            raise InvalidInput(
                f"a ClipBatch holds floats in [-1, 1], not {values.dtype}; ClipBatch.of takes uint8 Clips"
            )
        if values.dim() != 5 or 0 in values.shape:
            raise InvalidInput(
                f"a ClipBatch is (clips, frames, channels, height, width), none of them 0; got {_shape(values)}"
            )
        for name in ("lengths", "labels"):
            numbers = getattr(self, name)
            if numbers is not None and (numbers.dtype != torch.int64 or numbers.shape != values.shape[:1]):
                raise InvalidInput(
                    f"{name} must be int64 of shape ({values.shape[0]},), one number for each clip; "
                    f"got {numbers.dtype} of shape {_shape(numbers)}"
                )
        if self.lengths is not None and self.lengths.device.type == "cpu":
            self._check_lengths(self.lengths)
        if values.device.type == "cpu":
            low, high = (bound.item() for bound in values.detach().aminmax())
            if not (low >= -1 and high <= 1):
                raise InvalidInput(f"a ClipBatch holds values in [-1, 1]; these are in [{low:g}, {high:g}]")

    def _check_lengths(self, lengths: torch.Tensor) -> None:
        frames = self.values.shape[1]
        if not bool(((lengths >= 1) & (lengths <= frames)).all()):
            raise InvalidInput(f"lengths must be in 1..{frames}, the frames of the batch; got {lengths.tolist()}")
        if bool((lengths == frames).all()):
            object.__setattr__(self, "lengths", None)
        elif self.values.device.type == "cpu":
            padding = torch.arange(frames) >= lengths[:, None]
            if bool(self.values.detach()[padding].any()):
                raise InvalidInput("frames after a clip's length must be zero")

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> Self:
        """Maps clips to float32 in [-1, 1], padded with zeros to the longest of them."""
        if not clips:
            raise InvalidInput("a ClipBatch needs at least one clip")
        shapes = {tuple(clip.pixels.shape[1:]) for clip in clips}
        if len(shapes) > 1:
            raise InvalidInput(f"clips of one batch must have equal channels, height and width; got {sorted(shapes)}")
        labels = [clip.label for clip in clips if clip.label is not None]
        if len(labels) not in (0, len(clips)):
            raise InvalidInput(f"{len(labels)} of {len(clips)} clips have a label; label all clips of a batch or none")
        lengths = torch.tensor([clip.frames for clip in clips])
        values = torch.zeros(len(clips), int(lengths.max()), *shapes.pop())
        for row, clip in zip(values, clips, strict=True):
            row[: clip.frames] = from_uint8(clip.pixels)
        return cls(values, lengths, torch.tensor(labels) if labels else None)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same batch on another device, without new checks."""
        moved = object.__new__(type(self))
        for name in ("values", "lengths", "labels"):
            tensor = getattr(self, name)
            object.__setattr__(moved, name, None if tensor is None else tensor.to(device, non_blocking=non_blocking))
        return moved

    def to_clips(self, fps: float) -> list[Clip]:
        """The clips as uint8 on the CPU, without their padding."""
        pixels = to_uint8(self.values).cpu()
        count, frames = pixels.shape[:2]
        lengths = [frames] * count if self.lengths is None else self.lengths.tolist()
        labels = [None] * count if self.labels is None else self.labels.tolist()
        return [Clip(p[:n], fps, label) for p, n, label in zip(pixels, lengths, labels, strict=True)]


def from_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """0..255 to float32 in [-1, 1]: x / 127.5 - 1."""
    return pixels.float().div_(127.5).sub_(1)


def to_uint8(values: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to 0..255, rounded, the inverse of `from_uint8`; clamps values outside, which samples can have.

    Raises: InvalidInput if a value is NaN, which has no colour.
    """
    if bool(values.isnan().any()):
        raise InvalidInput(f"{int(values.isnan().sum())} of {values.numel()} values are NaN and have no colour")
    return values.detach().float().clamp(-1, 1).add(1).mul_(127.5).round_().to(torch.uint8)


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
