"""One evaluation: every measure of a set of fake clips against real ones, each with an interval and a floor."""

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
from diffusion.evaluation.protocol import Protocol
from diffusion.evaluation.uncertainty import LEAST_GROUPS, Distance, Estimate, floor, resampled


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure.

    floor: what it is between real clips at the same counts; None without a second set of real clips.
    mean_term, covariance_term: what a Frechet distance is made of.  p_value: of a permutation test.
    """

    measure: str
    estimate: Estimate
    floor: Estimate | None
    mean_term: float | None = None
    covariance_term: float | None = None
    p_value: float | None = None

    @property
    def bound(self) -> float | None:
        """The upper end of where real clips lie; None without a floor, or with too few clips to tell."""
        if self.floor is None or self.floor.margin is None:
            return None
        return self.floor.value + self.floor.margin

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a record."""
        pair = lambda estimate: None if estimate is None else [estimate.value, estimate.margin]
        return vars(self) | {"estimate": pair(self.estimate), "floor": pair(self.floor)}


class Evaluation:
    """Fake clips against real ones under one protocol.

    Args:
        real, fake: sets of clips of one length, size and number of channels, at least 2 each.
        second: as many other real clips as there are fake ones, for the floor; None for no floor.
        extractor: the network.
        protocol: how clips reach it.
        seed: of subsampling and permutations.
    Raises:
        EvaluationError: sets that cannot be compared.
    """

    def __init__(
        self,
        real: ClipSet,
        fake: ClipSet,
        second: ClipSet | None,
        *,
        extractor: Extractor,
        protocol: Protocol,
        seed: int,
    ) -> None:
        for clips in filter(None, (real, fake, second)):
            if clips.count < 2:
                raise EvaluationError(f"{clips.name} has {clips.count} clip to compare; a covariance needs at least 2")
        for what in ("frames", "size", "channels"):
            ours, theirs = getattr(fake, what), getattr(real, what)
            if ours != theirs:
                raise EvaluationError(
                    f"{fake.name} has clips of {ours} {what}, {real.name} of {theirs}; compare equal ones"
                )
        self.real, self.fake, self.second = real, fake, second
        self.extractor, self.protocol, self.seed = extractor, protocol, seed
        self._sets = {"real": real, "fake": fake} | ({"second": second} if second else {})
        self._features = {side: Features(clips, extractor, protocol) for side, clips in self._sets.items()}
        self._groups = {side: np.unique(clips.videos, return_inverse=True)[1] for side, clips in self._sets.items()}
        self._views = views(real.frames, protocol, extractor.least_frames)
        self.rows: list[Row] = []

    def work(self) -> Iterator[Progress]:
        """Computes `rows`; yields how far it is."""
        for view in self._views:
            for features in self._features.values():
                yield from features.computed(view)
        found: dict[str, list[dict[str, np.ndarray]]] = {}
        for side, clips in self._sets.items():
            found[side] = []
            for number in range(clips.count):
                found[side].append(curves(clips.read(number)))
                yield Progress(f"motion of {clips.name}", number + 1, clips.count)
        total = len(self._views) + len(CURVES)
        for done, view in enumerate(self._views, start=1):
            self.rows += self._of_view(view)
            yield Progress("intervals", done, total)
        for done, name in enumerate(CURVES, start=1 + len(self._views)):
            self.rows.append(self._of_curve(name, {s: np.stack([c[name] for c in f]) for s, f in found.items()}))
            yield Progress("intervals", done, total)

    def _of_view(self, view: View) -> list[Row]:
        real, fake = (self._features[side][view.name] for side in ("real", "fake"))
        second = self._features["second"][view.name] if self.second else None
        name, kernel_name = self.extractor.measures
        between = lambda a, b: lambda i, j: frechet(a[i], b[j]).value
        pool = None if second is None else np.concatenate([real, second])
        level = None if pool is None else self._floor(between(pool, pool))
        found = resampled(between(real, fake), self._groups["real"], self._groups["fake"], self._dice())
        terms = frechet(real, fake)
        parts = {"mean_term": terms.mean_term, "covariance_term": terms.covariance_term}
        label = name if view.name == "whole" else f"{name}, {view.name}"
        rows = [Row(measure=label, estimate=found.estimate, floor=level, **parts)]
        if view.name == "whole":
            limit = at_infinity(real, fake, self._groups["real"], self._groups["fake"], found, self._dice())
            if limit is not None:
                rows.append(Row(measure=f"{name}, infinite", estimate=limit, floor=None))
            rows.append(self._of_kernel(kernel_name, real, fake, second))
        return rows

    def _of_kernel(self, name: str, real: np.ndarray, fake: np.ndarray, second: np.ndarray | None) -> Row:
        kernel = Kernel(real, fake)
        across = lambda i, j: kernel.subset(i, j + len(real))
        found = resampled(across, self._groups["real"], self._groups["fake"], self._dice())
        level = None if second is None else self._floor(Kernel(real, second).subset)
        groups = np.concatenate([self._groups["real"], self._groups["fake"] + len(real)])
        return Row(measure=name, estimate=found.estimate, floor=level, p_value=kernel.p_value(self._dice(), groups))

    def _of_curve(self, name: str, sides: dict[str, np.ndarray]) -> Row:
        distance = Energy(sides["real"], sides["fake"])
        found = resampled(distance, self._groups["real"], self._groups["fake"], self._dice())
        level = self._floor(Energy(sides["real"], sides["second"]).between) if self.second else None
        return Row(measure=name, estimate=found.estimate, floor=level)

    def _floor(self, distance: Distance) -> Estimate | None:
        """Between real clips: by clips where each is of another video on either side, else by videos."""
        assert self.second is not None
        pool = [*self.real.videos, *self.second.videos]
        alone = all(clips.num_videos == clips.count for clips in (self.real, self.second))
        groups = np.arange(len(pool)) if alone else np.unique(pool, return_inverse=True)[1]
        return floor(distance, self.real.count, self.second.count, groups, self._dice())

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers must know, a sentence each; complete after `work`."""
        found = differences(self.real.origin, self.fake.origin)
        name, _ = self.extractor.measures
        fewest = min(self.real.count, self.fake.count)
        if fewest <= (width := self._features["real"].width):
            found.append(
                f"{name} compares covariances of {width} features, and {fewest} clips span at most {fewest - 1} "
                "dimensions: the value depends on the number of clips. Compare it at equal counts and with the floor"
            )
        videos = min(self.real.num_videos, self.fake.num_videos)
        if videos < LEAST_VIDEOS:
            found.append(f"{name}, infinite is not shown: fewer than {LEAST_VIDEOS} videos on a side ({videos})")
        if videos < LEAST_GROUPS:
            found.append(f"no intervals: fewer than {LEAST_GROUPS} videos on a side ({videos})")
        if self.second and all(row.floor is None for row in self.rows):
            found.append(f"no floor: fewer than {LEAST_GROUPS} videos of real clips")
        for side, clips in (("real", self.real), ("generated", self.fake)):
            if clips.num_videos < clips.count:
                found.append(
                    f"{clips.count} {side} clips come from {clips.num_videos} videos, and clips of one video are "
                    "alike: intervals are computed from halves of the videos"
                )
        return found

    def _dice(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def facts(self) -> dict[str, Any]:
        """What the numbers were computed with, for a record."""
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
