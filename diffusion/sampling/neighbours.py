"""Nearest training clip of a sample (memorisation check)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusion.clip import Clip
from diffusion.data import DataConfig, open_clips
from diffusion.data.clips import ClipSource
from diffusion.sampling.video import save_sheet

MOST_WINDOWS = 5000


@dataclass(frozen=True)
class Neighbour:
    """A training clip and its distance: root mean square difference of the pixels, in grey levels of 0..255."""

    clip: Clip
    distance: float


def nearest(samples: Sequence[Clip], source: ClipSource) -> list[Neighbour]:
    """The nearest training clip of each sample, mirrored clips included if training mirrored them.

    Of a source with more clips than `MOST_WINDOWS`, it compares `MOST_WINDOWS` evenly spaced clips.
    """
    windows = source.fixed(min(source.num_windows, MOST_WINDOWS))
    flat_samples = torch.stack([_flat(sample.pixels) for sample in samples])
    best: list[Neighbour | None] = [None] * len(samples)
    for window in windows:
        variants = [window.pixels, window.pixels.flip(-1)] if source.config.flip else [window.pixels]
        for pixels in variants:
            distances = (flat_samples - _flat(pixels)).square().mean(1).sqrt().tolist()
            for index, distance in enumerate(distances):
                so_far = best[index]
                if so_far is None or distance < so_far.distance:
                    best[index] = Neighbour(Clip(pixels, window.fps), distance)
    return [neighbour for neighbour in best if neighbour is not None]


def save_neighbours(path: Path, samples: Sequence[Clip], config: DataConfig) -> None:
    """Draws each sample above its nearest training clip, with their distance."""
    frames = samples[0].frames
    found = nearest(samples, open_clips(config.replace(frames=frames), split="train"))
    rows, names = [], []
    for sample, neighbour in zip(samples, found, strict=True):
        rows += [sample, neighbour.clip]
        names += ["sample", f"nearest: {neighbour.distance:.0f}"]
    save_sheet(path, rows, names=names)


def _flat(pixels: Tensor) -> Tensor:
    return pixels.flatten().float()
