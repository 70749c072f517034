"""The cases of a run, in groups; the most valuable group comes first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.paper.control import COLUMNS, Column

from .cases import DTYPES, Agreed, GpuCase, Group

Backends = Mapping[str, Sequence[str]]

_REFERENCE = "reference"
# `selective_block` combines two ops, so its backends are pairs.
_BLOCK, _CONV, _SCAN = "selective_block", "causal_conv", "selective_scan"


@dataclass(frozen=True)
class RunSizes:
    """The sizes of the cases.

    Args:
        shapes: rows, frames and channels of the comparisons with the reference.
        kernels: rows, frames and channels of the kernels.
        compiled: ops with a size of the kernels, whose reference also runs through `torch.compile`.
        preset: preset of the denoiser.
        size: height and width of a frame in pixels.
        control, long, sampling: numbers of frames in these groups.
        seconds: factor of the estimated durations.
    """

    shapes: tuple[tuple[int, int, int], ...]
    kernels: tuple[tuple[int, int, int], ...]
    compiled: tuple[tuple[str, tuple[int, int, int]], ...]
    preset: str
    size: int
    control: tuple[int, ...]
    long: tuple[int, ...]
    sampling: tuple[int, ...]
    seconds: float = 1.0


FULL = RunSizes(
    # Rows, frames and channels are not multiples of a block size, and attention has heads of 32 and of 64 features.
    shapes=((3, 1, 64), (5, 5, 128), (7, 17, 64), (3, 64, 128), (5, 257, 64)),
    kernels=((8192, 16, 128), (4096, 64, 128), (1024, 256, 128), (256, 1024, 128)),
    # The reference of the scan is a loop over the frames, which the compiler unrolls.
    compiled=(
        ("attention", (8192, 16, 128)),
        ("causal_conv", (8192, 16, 128)),
        ("selective_scan", (8192, 16, 128)),
        ("attention", (1024, 256, 128)),
        ("causal_conv", (1024, 256, 128)),
    ),
    preset="paper-57.5M",
    size=32,
    control=(256, 64, 16),
    long=(512, 1024),
    sampling=(256, 64, 16),
)
REHEARSAL = RunSizes(
    shapes=((3, 1, 64), (3, 5, 64)),
    kernels=((8, 4, 64),),
    compiled=(("attention", (8, 4, 64)),),
    preset="tiny",
    size=8,
    control=(4,),
    long=(8,),
    sampling=(4,),
    seconds=0.3,
)


# Columns of the paper's control (`bench.paper.control`) by name, the most valuable first.
TRAINING = (
    "bimamba",
    "attention, fused",
    "attention, fused, recomputed",
    "attention with bias, weights held",
    "attention with bias, weights held, recomputed",
    "mamba",
    "identity: no temporal layer",
    "attention, fused by cuDNN",
    "attention, weights held",
    "attention, weights held, recomputed",
)
SAMPLING = (
    "bimamba",
    "attention, fused",
    "attention with bias, weights held",
    "mamba",
    "s4d",
    "identity: no temporal layer",
)
_COLUMNS = {column.name: column for column in COLUMNS}


def groups(backends: Backends, sizes: RunSizes) -> list[Group]:
    """All groups, the most valuable first.

    Args:
        backends: op -> its backends, in the order that `auto` tries them.
    """
    return [
        Group("agreement", lambda agreed: list(_agreement(backends, sizes)), most_s=90),
        Group("kernels", lambda agreed: list(_kernels(backends, sizes)), most_s=150),
        Group("control", lambda agreed: list(_training(backends, sizes, sizes.control, agreed))),
        Group("long clips", lambda agreed: list(_training(backends, sizes, sizes.long, agreed))),
        Group("sampling", lambda agreed: list(_sampling(backends, sizes, agreed))),
        Group("compiled", lambda agreed: list(_compiled(sizes))),
    ]


def _agreement(backends: Backends, sizes: RunSizes) -> Iterator[GpuCase]:
    pairs = [(op, backend) for op, names in sorted(backends.items()) for backend in names if backend != "cpu"]
    pairs += [(_BLOCK, f"{_CONV}={backend},{_SCAN}={backend}") for backend in ("triton", "torch")]
    # Our Triton kernels come first, because only a GPU can check them; among them, those of the network's steps.
    pairs.sort(key=lambda pair: ("triton" not in pair[1], pair[1] == _REFERENCE, pair[0] == "attention"))
    for dtype in reversed(DTYPES):
        for op, backend in pairs:
            # The cases of its two ops cover all shapes, and Triton compiles a kernel for several kinds of shapes.
            shapes = sizes.shapes[::2] if op == _BLOCK else sizes.shapes
            what = {"op": op, "backend": backend, "dtype": dtype, "shapes": [list(shape) for shape in shapes]}
            yield GpuCase("agreement", what, sizes.seconds * (10.0 if "triton" in backend else 0.7))


def _kernels(backends: Backends, sizes: RunSizes) -> Iterator[GpuCase]:
    first = ("selective_scan", "attention", "causal_conv")
    ops = [*first, *sorted(backends.keys() - set(first))]
    for dtype, shape, op in itertools.product(DTYPES, sizes.kernels, ops):
        yield GpuCase("kernels", _call(op, shape, dtype), 4.0 * sizes.seconds)


def _compiled(sizes: RunSizes) -> Iterator[GpuCase]:
    for op, shape in sizes.compiled:
        yield GpuCase("kernels", _call(op, shape, "bfloat16") | {"compiled": True}, 25.0)


def _call(op: str, shape: Sequence[int], dtype: str) -> dict[str, Any]:
    rows, frames, channels = shape
    return {"op": op, "rows": rows, "frames": frames, "channels": channels, "dtype": dtype}


def _training(backends: Backends, sizes: RunSizes, lengths: Sequence[int], agreed: Agreed) -> Iterator[GpuCase]:
    for frames, dtype, name in itertools.product(lengths, DTYPES, TRAINING):
        column = _COLUMNS[name]
        if dtype in column.dtypes:
            estimate = sizes.seconds * (2.0 + frames / 150)
            yield GpuCase(
                "training_step", _step(column, frames, dtype, sizes), estimate, _pins(column, dtype, backends, agreed)
            )


def _sampling(backends: Backends, sizes: RunSizes, agreed: Agreed) -> Iterator[GpuCase]:
    for frames, dtype, name in itertools.product(sizes.sampling, DTYPES, SAMPLING):
        column, estimate = _COLUMNS[name], sizes.seconds * (1.0 + frames / 250)
        yield GpuCase(
            "sampling_step", _step(column, frames, dtype, sizes), estimate, _pins(column, dtype, backends, agreed)
        )


def _step(column: Column, frames: int, dtype: str, sizes: RunSizes) -> dict[str, Any]:
    """A setup of `bench.plan.plan` with the backends of the column."""
    setup = {
        "mixer": column.mixer, "frames": frames, "clips": 1, "size": sizes.size, "preset": sizes.preset,
        "checkpointing": column.checkpointing, "dtype": dtype, "backends": list(column.backends),
    }  # fmt: skip
    return {"row": column.name, "setup": setup}


def _pins(column: Column, dtype: str, backends: Backends, agreed: Agreed) -> tuple[str, ...]:
    """The first backend that agrees with the reference, for every op that the column does not pin."""
    fixed = [pin.partition("=")[0] for pin in column.backends]
    return tuple(
        f"{op}={name}"
        for op in sorted(backends)
        if op not in fixed and (name := _first(op, backends[op], dtype, agreed))
    )


def _first(op: str, names: Sequence[str], dtype: str, agreed: Agreed) -> str | None:
    """The first backend that agrees with the reference; None if no backend is known to agree."""
    return next((name for name in names if name != _REFERENCE and (op, name, dtype) in agreed), None)
