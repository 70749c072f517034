"""Samples of a trained model, a file each: drawn once, and where an interruption left off.

Clip i is a function of the checkpoint, the sampler and (seed, i), whatever the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion.clip import to_uint8
from diffusion.evaluation import EvaluationError
from diffusion.evaluation.clips import Arrays
from diffusion.evaluation.features import Progress
from diffusion.evaluation.origin import DRAWN
from diffusion.evaluation.protocol import Protocol
from diffusion.sampling.generate import SAMPLER, Sampler, generate, levels_visited, load_network
from diffusion.training import checkpoint
from temporal_zoo._support.environment import digest
from temporal_zoo._support.files import written_whole

AT_ONCE = 8


class Samples:
    """`count` clips of a run, kept in a folder of their own below `folder`.

    Args:
        run: a run's folder, a checkpoint, or "builtin:NAME".
        protocol: says whether clips are kept as uint8, or unrounded.
        how: sampler, number of its steps, frames of a clip (None: as trained) and seed.
    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
        ConfigError: the run cannot sample so.
    """

    def __init__(
        self, run: str, folder: Path, count: int, protocol: Protocol, device: torch.device, *,
        sampler: Sampler = SAMPLER, num_steps: int | None = None, frames: int | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        path = checkpoint.find(run)
        self.network, self.config, _ = load_network(path, device)
        self.run, self.count = run, count
        self.quantised = protocol.quantised
        self.how: dict[str, Any] = {
            "sampler": sampler, "num_steps": levels_visited(self.config, num_steps),
            "frames": frames or self.config.data.frames, "seed": seed,
        }  # fmt: skip
        self.frames, self.size = self.how["frames"], self.config.model.size
        # The averaged weights, and not the file: it also holds the moment that it was written.
        content = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            content.update(name.encode() + value.cpu().numpy().tobytes())
        self.weights_sha256 = content.hexdigest()
        made_with = {"weights": self.weights_sha256, "rounded": self.quantised, **self.how}
        self.folder = folder / f"samples-{digest(made_with)}"

    def draw(self) -> Iterator[Progress]:
        """Draws what is missing; yields how far it is."""
        work = f"drawing from {self.run}"
        for first in range(0, self.count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, self.count))
            if not all(self._path(number).exists() for number in numbers):
                for estimate in generate(self.network, self.config, numbers, **self.how):
                    values = estimate
                pixels = to_uint8(values) if self.quantised else values.float().clamp(-1, 1)
                for number, clip in zip(numbers, pixels.cpu().permute(0, 1, 3, 4, 2).numpy(), strict=True):
                    with written_whole(self._path(number)) as file:
                        np.save(file, np.ascontiguousarray(clip))
            yield Progress(work, numbers.stop, self.count)

    def clips(self) -> Arrays:
        """The set of clips.  Raises: EvaluationError before they are drawn."""
        paths = [self._path(number) for number in range(self.count)]
        if missing := sum(not path.exists() for path in paths):
            raise EvaluationError(f"{missing} of the {self.count} samples of {self.run} are not drawn yet")
        return Arrays(self.run, paths, how=DRAWN)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"
