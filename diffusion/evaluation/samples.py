"""Samples of a trained model, one file each.  Only missing samples are drawn, so an interrupted command can be resumed.

Clip i is a function of the checkpoint, the sampler and (seed, i); it does not depend on the batch.
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
from diffusion.evaluation.protocol import EvaluationProtocol
from diffusion.sampling.generate import SAMPLER, Sampler, generate, levels_visited, load_network
from diffusion.training import checkpoint
from temporal_zoo._support.environment import digest
from temporal_zoo._support.files import written_whole

AT_ONCE = 8


class Samples:
    """`count` clips of a run, in a subfolder of `folder`.

    Args:
        run: a run's folder, a checkpoint, or "builtin:NAME".
        protocol: whether clips are stored as uint8 or as floats.
        sampler, num_steps, frames, seed: of the sampling; frames None is the number of frames in training.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
        ConfigError: the run cannot be sampled with these settings.
    """

    def __init__(
        self, run: str, folder: Path, count: int, protocol: EvaluationProtocol, device: torch.device, *,
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
        # The digest is of the averaged weights and not of the file, which also contains the time when it was written.
        content = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            content.update(name.encode() + value.cpu().numpy().tobytes())
        self.weights_sha256 = content.hexdigest()
        settings = {"weights": self.weights_sha256, "rounded": self.quantised, **self.how}
        self.folder = folder / f"samples-{digest(settings)}"

    def draw(self) -> Iterator[Progress]:
        """Draws the missing samples; yields the progress."""
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
        """The set of clips.

        Raises:
            EvaluationError: some samples are not drawn yet.
        """
        paths = [self._path(number) for number in range(self.count)]
        if missing := sum(not path.exists() for path in paths):
            raise EvaluationError(f"{missing} of the {self.count} samples of {self.run} are not drawn yet")
        return Arrays(self.run, paths, how=DRAWN)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"
