"""Computes the features of a set of clips once for each set, protocol, network and view, and caches them.

The name of a cache file is a digest of the clips' pixels, in order, and of everything else that features depend on.
The file is written repeatedly during the extraction, so that an interrupted extraction can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion.evaluation import EvaluationError
from diffusion.evaluation.clips import ClipSet
from diffusion.evaluation.extractors import Extractor
from diffusion.evaluation.protocol import EvaluationProtocol
from temporal_zoo._support.environment import digest
from temporal_zoo._support.files import cache_folder, written_whole

FRAMES_AT_ONCE = 64
SAVE_SECONDS = 30


@dataclass(frozen=True)
class View:
    """The indices of the frames of a clip that are the input of the network."""

    name: str
    frames: tuple[int, ...]


def views(frames: int, protocol: EvaluationProtocol, least: int) -> list[View]:
    """The views of a clip: whole; one frame repeated `least` times; windows at its start, middle and end."""
    chosen = [View("whole", tuple(range(frames)))]
    if protocol.static:
        chosen.append(View("static", (frames // 2,) * least))
    if protocol.window and frames >= 2 * protocol.window:
        for name, start in (
            ("start", 0),
            ("middle", (frames - protocol.window) // 2),
            ("end", frames - protocol.window),
        ):
            chosen.append(View(name, tuple(range(start, start + protocol.window))))
    return chosen


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is: `done` of `total` parts."""

    work: str
    done: int
    total: int


def require_frames(name: str, frames: int, extractor: Extractor) -> None:
    """Checks that clips of this number of frames are long enough for a network.

    Raises:
        EvaluationError: they are too short.
    """
    if frames < extractor.least_frames:
        raise EvaluationError(
            f"{name} has clips of {frames} frames; {extractor.identity['extractor']} needs at least "
            f"{extractor.least_frames}"
        )


class Features:
    """Features of the clips of a set under one protocol, by view.

    Raises:
        EvaluationError: the clips are too short for the network.
    """

    def __init__(self, clips: ClipSet, extractor: Extractor, protocol: EvaluationProtocol) -> None:
        require_frames(clips.name, clips.frames, extractor)
        self.clips, self.extractor, self.protocol = clips, extractor, protocol
        self._pixels = ""
        self._features: dict[str, np.ndarray] = {}

    def __getitem__(self, view: str) -> np.ndarray:
        """(n, f) float32 of a view; `computed` must have finished for this view."""
        return self._features[view]

    @property
    def width(self) -> int:
        """Number of features of a clip; 0 before the first view is computed."""
        return next((features.shape[1] for features in self._features.values()), 0)

    def computed(self, view: View) -> Iterator[Progress]:
        """Computes the features of a view or reads them from the cache; yields the progress."""
        if not self._pixels:
            yield from self._read()
        identity = self._identity(view)
        path = cache_folder() / "features" / f"{digest(identity)}.npz"
        known = _load(path, identity) if path.exists() else None
        rows = [] if known is None else [known]
        done = 0 if known is None else len(known)
        work = f"{self.extractor.identity['extractor']} on {self.clips.name}, {view.name}"
        at_once = max(1, FRAMES_AT_ONCE // len(view.frames))
        saved = time.monotonic()
        yield Progress(work, done, self.clips.count)
        while done < self.clips.count:
            last = min(self.clips.count, done + at_once)
            batch = torch.stack([self.clips.read(number)[list(view.frames)] for number in range(done, last)])
            features = self.extractor.features(batch, self.protocol).numpy()
            if not np.isfinite(features).all():
                raise EvaluationError(
                    f"{self.extractor.identity['extractor']} computes features that are not finite for clips {done} to "
                    f"{last - 1} of {self.clips.name}; check the clips and the weights"
                )
            rows.append(features)
            done = last
            if done == self.clips.count or time.monotonic() - saved > SAVE_SECONDS:
                _save(path, identity, np.concatenate(rows))
                saved = time.monotonic()
            yield Progress(work, done, self.clips.count)
        self._features[view.name] = np.concatenate(rows)

    def _read(self) -> Iterator[Progress]:
        """Computes the digest of the pixels."""
        pixels = hashlib.blake2b(digest_size=16)
        for number in range(self.clips.count):
            clip = self.clips.read(number).contiguous()
            pixels.update(f"{clip.dtype} {tuple(clip.shape)}".encode())
            pixels.update(clip.numpy().tobytes())
            yield Progress(f"reading {self.clips.name}", number + 1, self.clips.count)
        self._pixels = pixels.hexdigest()

    @property
    def pixels(self) -> str:
        """Digest of the clips' pixels, in order; empty before the first view is computed."""
        return self._pixels

    def _identity(self, view: View) -> dict[str, Any]:
        return {
            "pixels": self._pixels,
            "frames": list(view.frames),
            "protocol": self.protocol.digest,
            "extractor": self.extractor.identity,
        }


def _save(path: Path, identity: dict[str, Any], features: np.ndarray) -> None:
    with written_whole(path) as file:
        np.savez(file, features=features, identity=np.array(json.dumps(identity, sort_keys=True)))


def _load(path: Path, identity: dict[str, Any]) -> np.ndarray:
    """Reads features from a cache file.

    Raises:
        EvaluationError: the file is damaged or belongs to other clips.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            stored, features = json.loads(str(archive["identity"])), archive["features"]
    except Exception as error:  # a damaged file raises ValueError, KeyError, zipfile.BadZipFile, zlib.error and others
        raise EvaluationError(f"the features in {path} are damaged ({error}); delete the file") from error
    if differing := [name for name in identity if stored.get(name) != identity[name]]:
        raise EvaluationError(f"the features in {path} belong to other {' and '.join(differing)}; delete the file")
    return features
