"""One evaluation: computes every measure between fake and real clips, each with an interval and a floor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion.evaluation import EvaluationError
from diffusion.evaluation.clips import ClipSet
from diffusion.evaluation.extractors import Extractor
from diffusion.evaluation.features import Features, Progress, View, views
from diffusion.evaluation.frechet import frechet
from diffusion.evaluation.infinite import LEAST_VIDEOS, METHOD, at_infinity
from diffusion.evaluation.kernel import Kernel
from diffusion.evaluation.measures import CURVES, Energy, curves
from diffusion.evaluation.origin import differences
from diffusion.evaluation.protocol import EvaluationProtocol
from diffusion.evaluation.uncertainty import LEAST_GROUPS, Distance, Estimate, floor, resampled


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The value of one measure.

    floor: the measure between real clips, with the same numbers of clips; None without a second set of real clips.
    mean_term, covariance_term: the two terms of a Frechet distance.
    p_value: of a permutation test.
    """

    measure: str
    estimate: Estimate
    floor: Estimate | None
    mean_term: float | None = None
    covariance_term: float | None = None
    p_value: float | None = None

    @property
    def bound(self) -> float | None:
        """The upper end of the floor; None without a floor, or with too few clips."""
        if self.floor is None or self.floor.margin is None:
            return None
        return self.floor.value + self.floor.margin

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        pair = lambda estimate: None if estimate is None else [estimate.value, estimate.margin]
        return vars(self) | {"estimate": pair(self.estimate), "floor": pair(self.floor)}


class Evaluation:
    """Fake clips against real ones under one protocol.

    Args:
        real, fake: sets of clips of one length, size and number of channels, at least 2 each.
        second: other real clips, as many as fake ones, for the floor; None for no floor.
        extractor: the network.
        protocol: how clips are converted to its input.
        seed: of subsampling and permutations.

    Raises:
        EvaluationError: the sets cannot be compared.
    """

    def __init__(
        self,
        real: ClipSet,
        fake: ClipSet,
        second: ClipSet | None,
        *,
        extractor: Extractor,
        protocol: EvaluationProtocol,
        seed: int,
    ) -> None:
        for clips in filter(None, (real, fake, second)):
            if clips.count < 2:
                raise EvaluationError(f"{clips.name} has {clips.count} clip to compare; a covariance needs at least 2")
        for what in ("frames", "size", "channels"):
            ours, theirs = getattr(fake, what), getattr(real, what)
            if ours != theirs:
                raise EvaluationError(
                    f"the {what} of the clips differ: {ours} in {fake.name}, {theirs} in {real.name}; use equal ones"
                )
        self.real, self.fake, self.second = real, fake, second
        self.extractor, self.protocol, self.seed = extractor, protocol, seed
        self._sets = {"real": real, "fake": fake} | ({"second": second} if second else {})
        self._features = {side: Features(clips, extractor, protocol) for side, clips in self._sets.items()}
        self._groups = {side: np.unique(clips.videos, return_inverse=True)[1] for side, clips in self._sets.items()}
        self._views = views(real.frames, protocol, extractor.least_frames)
        self.rows: list[Measurement] = []

    def work(self) -> Iterator[Progress]:
        """Computes `rows`; yields the progress."""
        for view in self._views:
            for features in self._features.values():
                yield from features.computed(view)
        motion: dict[str, list[dict[str, np.ndarray]]] = {}
        for side, clips in self._sets.items():
            motion[side] = []
            for number in range(clips.count):
                motion[side].append(curves(clips.read(number)))
                yield Progress(f"motion of {clips.name}", number + 1, clips.count)
        total = len(self._views) + len(CURVES)
        for done, view in enumerate(self._views, start=1):
            self.rows += self._of_view(view)
            yield Progress("intervals", done, total)
        for done, name in enumerate(CURVES, start=1 + len(self._views)):
            self.rows.append(self._of_curve(name, {s: np.stack([c[name] for c in f]) for s, f in motion.items()}))
            yield Progress("intervals", done, total)

    def _of_view(self, view: View) -> list[Measurement]:
        real, fake = (self._features[side][view.name] for side in ("real", "fake"))
        second = self._features["second"][view.name] if self.second else None
        name, kernel_name = self.extractor.measures
        between = lambda a, b: lambda i, j: frechet(a[i], b[j]).value
        pool = None if second is None else np.concatenate([real, second])
        between_real = None if pool is None else self._floor(between(pool, pool))
        sampled = resampled(between(real, fake), self._groups["real"], self._groups["fake"], self._rng())
        terms = frechet(real, fake)
        parts = {"mean_term": terms.mean_term, "covariance_term": terms.covariance_term}
        label = name if view.name == "whole" else f"{name}, {view.name}"
        rows = [Measurement(measure=label, estimate=sampled.estimate, floor=between_real, **parts)]
        if view.name == "whole":
            limit = at_infinity(real, fake, self._groups["real"], self._groups["fake"], sampled, self._rng())
            if limit is not None:
                rows.append(Measurement(measure=f"{name}, infinite", estimate=limit, floor=None))
            rows.append(self._of_kernel(kernel_name, real, fake, second))
        return rows

    def _of_kernel(self, name: str, real: np.ndarray, fake: np.ndarray, second: np.ndarray | None) -> Measurement:
        kernel = Kernel(real, fake)
        across = lambda i, j: kernel.subset(i, j + len(real))
        sampled = resampled(across, self._groups["real"], self._groups["fake"], self._rng())
        between_real = None if second is None else self._floor(Kernel(real, second).subset)
        groups = np.concatenate([self._groups["real"], self._groups["fake"] + len(real)])
        return Measurement(
            measure=name, estimate=sampled.estimate, floor=between_real, p_value=kernel.p_value(self._rng(), groups)
        )

    def _of_curve(self, name: str, sides: dict[str, np.ndarray]) -> Measurement:
        distance = Energy(sides["real"], sides["fake"])
        sampled = resampled(distance, self._groups["real"], self._groups["fake"], self._rng())
        between_real = self._floor(Energy(sides["real"], sides["second"]).between) if self.second else None
        return Measurement(measure=name, estimate=sampled.estimate, floor=between_real)

    def _floor(self, distance: Distance) -> Estimate | None:
        """The distance between real clips; splits the pool by clips if each has its own video, else by videos."""
        assert self.second is not None
        pool = [*self.real.videos, *self.second.videos]
        alone = all(clips.num_videos == clips.count for clips in (self.real, self.second))
        groups = np.arange(len(pool)) if alone else np.unique(pool, return_inverse=True)[1]
        return floor(distance, self.real.count, self.second.count, groups, self._rng())

    @property
    def warnings(self) -> list[str]:
        """What a reader of the values must know, one sentence each; complete after `work`."""
        sentences = differences(self.real.origin, self.fake.origin)
        name, _ = self.extractor.measures
        fewest = min(self.real.count, self.fake.count)
        if fewest <= (width := self._features["real"].width):
            sentences.append(
                f"{name} compares covariances of {width} features, and {fewest} clips span at most {fewest - 1} "
                "dimensions: the value depends on the number of clips. Compare it at equal numbers and with the floor"
            )
        videos = min(self.real.num_videos, self.fake.num_videos)
        if videos < LEAST_VIDEOS:
            sentences.append(f"{name}, infinite is not shown: fewer than {LEAST_VIDEOS} videos on a side ({videos})")
        if videos < LEAST_GROUPS:
            sentences.append(f"no intervals: fewer than {LEAST_GROUPS} videos on a side ({videos})")
        if self.second and all(row.floor is None for row in self.rows):
            sentences.append(f"no floor: fewer than {LEAST_GROUPS} videos of real clips")
        for side, clips in (("real", self.real), ("generated", self.fake)):
            if clips.num_videos < clips.count:
                sentences.append(
                    f"{clips.count} {side} clips come from {clips.num_videos} videos, and clips of one video are "
                    "similar: intervals are computed from halves of the videos"
                )
        return sentences

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def facts(self) -> dict[str, Any]:
        """The settings and inputs of the values, for a record."""
        sets = {
            side: {
                "name": clips.name, "count": clips.count, "videos": clips.num_videos,
                "pixels": self._features[side].pixels, "origin": clips.origin.to_dict(),
            }
            for side, clips in self._sets.items()
        }  # fmt: skip
        return {
            "protocol": self.protocol.to_dict(), "protocol_digest": self.protocol.digest,
            "extractor": self.extractor.identity, "frames": self.real.frames, "size": self.real.size,
            "sets": sets, "seed": self.seed, "interval_method": METHOD, "warnings": self.warnings,
        }  # fmt: skip
