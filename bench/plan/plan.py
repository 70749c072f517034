"""Plans the bytes of a training step for a device and backends that this machine does not need to have."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from bench.sweep.case import MOST_PLANNED, check_pixels
from bench.sweep.training_step import FixedBatchStep, training_step
from temporal_zoo.config import Config, ConfigError, nearest, option
from temporal_zoo.ops import Planned, ops, planning, tracing, use_backend
from temporal_zoo.ops.attention.sdpa import kernel as sdpa_kernel

from .accounting import Bytes, account
from .devices import Device

CHECKPOINTING = ("none", "mixers", "blocks")
# Features per head in all presets.
_FEATURES = 64
# The search for the longest clip ends here; no data set has longer clips.
MOST_FRAMES = 2**16
# Relative precision of the longest clip.
_PRECISION = 0.01


@dataclass(frozen=True, kw_only=True)
class Setup(Config):
    """A denoiser and its batch, trained with AdamW and a moving average of the weights.

    Weights, gradients and updates are float32; with a short dtype the network runs under autocast.
    """

    mixer: str = option("bimamba", "mixer of each slot")
    frames: int = option(256, "frames of a clip", least=1, most=MOST_PLANNED)
    clips: int = option(1, "clips of a batch", least=1)
    size: int = option(32, "height and width of a frame in pixels", least=1)
    preset: str = option("paper-57.5M", "preset of the denoiser, whose mixer is replaced")
    checkpointing: Literal["none", "mixers", "blocks"] = option(
        "none", "parts that are recomputed in the backward pass (activation checkpointing)"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = option("float32", "precision; short dtypes run under autocast")
    backends: tuple[str, ...] = option((), "pinned backends, each op=backend")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pixels(self.clips, self.size)

    @property
    def pins(self) -> dict[str, str]:
        """Op -> its pinned backend."""
        return dict(pin.split("=") for pin in self.backends)

    def step(self, device: torch.device) -> FixedBatchStep:
        """Builds a training step of this setup."""
        changes = (f"mixer={self.mixer}", f"checkpointing={self.checkpointing}", f"size={self.size}")
        dtype = getattr(torch, self.dtype)
        return training_step(self.preset, *changes, clips=self.clips, frames=self.frames, device=device, dtype=dtype)


@dataclass(frozen=True)
class Plan:
    """The bytes of a setup on a device, and the backends that run."""

    setup: Setup
    device: Device
    bytes: Bytes
    backends: dict[str, list[str]]

    @property
    def fit(self) -> Literal["yes", "tight", "no"]:
        """Whether the step fits: "no" if its peak does not, "tight" if its peak does and the reserved bytes do not."""
        usable = self.device.usable_bytes
        if self.bytes.peak > usable:
            return "no"
        return "yes" if (self.bytes.reserved or 0) <= usable else "tight"

    @property
    def backend_labels(self) -> tuple[str, ...]:
        """Each op and its backend; for SDPA with the kernel: "attention=sdpa (efficient kernel)"."""
        planned = Planned(self.device.type, self.device.capability)
        q = torch.empty(1, 1, 1, _FEATURES, device="meta", dtype=getattr(torch, self.setup.dtype))
        with planning(planned):
            labels = {"sdpa": f"sdpa ({sdpa_kernel(q, None)} kernel)"}
        return tuple(
            f"{op}={labels.get(backend, backend)}" for op, backends in self.backends.items() for backend in backends
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        sizes = {**asdict(self.bytes), "peak": self.bytes.peak}
        return {
            "setup": self.setup.to_dict(), "device": asdict(self.device), "bytes": sizes, "fit": self.fit,
            "backends": self.backends,
        }  # fmt: skip


class Planner:
    """Plans setups for one device, and caches the plans."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.plan = functools.cache(self._plan)

    def _plan(self, setup: Setup) -> Plan:
        for op in setup.pins:
            if op not in ops():
                raise ConfigError(f"unknown op {op!r}{nearest(op, ops())}; choose from {', '.join(ops())}")
        planned = Planned(self.device.type, self.device.capability)
        with planning(planned), use_backend(**setup.pins), tracing() as ran:
            counted = account(setup.step(torch.device("meta")), self.device.type)
        return Plan(setup, self.device, counted, {op: sorted(backends) for op, backends in sorted(ran.items())})

    def longest(self, setup: Setup, lengths: Sequence[int]) -> int:
        """The most frames that fit, rounded down by at most 1 %; 0 if one frame does not fit.

        Args:
            lengths: numbers of frames to start the search with.
        """
        peaks = {frames: self.plan(setup.replace(frames=frames)).bytes.peak for frames in lengths}
        return largest(
            lambda frames: self.plan(setup.replace(frames=frames)).bytes.peak, self.device.usable_bytes, peaks
        )


def plans_of(device: Device, lengths: Sequence[int], setup: Setup) -> tuple[list[Plan], int]:
    """The plans of a setup for each number of frames, and the most frames that fit."""
    planner = Planner(device)
    return [planner.plan(setup.replace(frames=frames)) for frames in lengths], planner.longest(setup, lengths)


def largest(peak: Callable[[int], int], limit: int, known: Mapping[int, int]) -> int:
    """The largest number of frames with `peak(frames) <= limit`, to 1 %; `known` contains values of `peak`."""
    values = dict(known)

    def at(frames: int) -> int:
        if frames not in values:
            values[frames] = peak(frames)
        return values[frames]

    low = max((frames for frames, value in values.items() if value <= limit), default=0)
    high = min((frames for frames, value in values.items() if value > limit), default=0)
    while not high:
        if low >= MOST_FRAMES:
            return low
        guess = min(MOST_FRAMES, max(math.ceil(1.01 * _crossing(values, limit, low, MOST_FRAMES)), low + 1))
        low, high = (guess, high) if at(guess) <= limit else (low, guess)
    while high - low > (margin := max(1, int(_PRECISION * low))):
        # If the bytes are a + b L + c L^2, the first guess is the answer, and the second guess confirms it.
        guess = min(max(_crossing(values, limit, low, high), low + margin), high - 1)
        low, high = (guess, high) if at(guess) <= limit else (low, guess)
    return low


def _crossing(values: Mapping[int, int], limit: int, low: int, high: int) -> int:
    """The length at which the parabola through the three nearest known lengths reaches the limit."""
    near = sorted(values, key=lambda frames: abs(math.log(frames / max(low, 1))))[:3]
    if len(near) < 3:
        return (low + high) // 2
    roots = np.roots(np.polyfit(near, [float(values[frames]) for frames in near], 2) - [0.0, 0.0, float(limit)])
    inside = [root.real for root in roots if abs(root.imag) < 1e-9 and low < root.real < high]
    return int(inside[0]) if inside else (low + high) // 2
