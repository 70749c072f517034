"""Damages real clips in known ways, to test which measures respond: name -> function of (clip, another clip, rng).

Clips are (t, c, h, w) uint8; every distortion keeps shape and type.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from diffusion.evaluation.clips import ClipSet
from diffusion.randomness import generator

CHUNK = 32
_GREY_LEVELS = 8


def noise(clip: Tensor, _: Tensor, rng: torch.Generator) -> Tensor:
    """Every pixel is changed by up to 8 grey levels, independently; hardly visible."""
    added = torch.randint(-_GREY_LEVELS, _GREY_LEVELS + 1, clip.shape, generator=rng)
    return (clip + added).clamp(0, 255).to(torch.uint8)


def blur(clip: Tensor, _: Tensor, rng: torch.Generator) -> Tensor:
    """Every pixel is the mean of the 3 x 3 pixels around it."""
    edged = functional.pad(clip.float(), (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(edged, 3, 1).round().to(torch.uint8)


def freeze(clip: Tensor, _: Tensor, rng: torch.Generator) -> Tensor:
    """The second half repeats the middle frame."""
    return clip[torch.arange(len(clip)).clamp(max=len(clip) // 2)]


def shuffle(clip: Tensor, _: Tensor, rng: torch.Generator) -> Tensor:
    """All frames are in random order."""
    return clip[torch.randperm(len(clip), generator=rng)]


def reverse(clip: Tensor, _: Tensor, rng: torch.Generator) -> Tensor:
    """All frames are in reverse order."""
    return clip.flip(0)


def chunk_shuffle(clip: Tensor, _: Tensor, rng: torch.Generator) -> Tensor:
    """Chunks of 32 frames (a quarter of a shorter clip) are in another order: only the long-range order is wrong."""
    chunks = clip.split(max(1, min(CHUNK, len(clip) // 4)))
    order = torch.arange(len(chunks))
    while len(chunks) > 1 and bool((order == torch.arange(len(chunks))).all()):
        order = torch.randperm(len(chunks), generator=rng)
    return torch.cat([chunks[index] for index in order])


def splice(clip: Tensor, other: Tensor, rng: torch.Generator) -> Tensor:
    """The second half comes from another clip."""
    return torch.cat([clip[: len(clip) // 2], other[len(clip) // 2 :]])


DISTORTIONS: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "freeze": freeze,
    "shuffle": shuffle,
    "reverse": reverse,
    "chunk shuffle": chunk_shuffle,
    "splice": splice,
}


class Distorted:
    """A set of uint8 clips with the same distortion; clip i is a function of the set, the seed and i."""

    def __init__(self, clips: ClipSet, name: str, *, seed: int) -> None:
        self.name = f"{clips.name}, {name}"
        self.count, self.frames, self.num_videos = clips.count, clips.frames, clips.num_videos
        self.size, self.channels, self.videos, self.origin = clips.size, clips.channels, clips.videos, clips.origin
        self._clips, self._distortion, self._seed = clips, name, seed

    def read(self, number: int) -> Tensor:
        """Reads a clip: (t, c, h, w) uint8."""
        clip, other = self._clips.read(number), self._clips.read((number + 1) % self.count)
        rng = generator(self._seed, self._distortion, number)
        return DISTORTIONS[self._distortion](clip, other, rng)
