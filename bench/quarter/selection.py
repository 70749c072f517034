"""What a quarter measures: groups of cases, the most valuable first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.paper.control import COLUMNS, Column

from .cases import DTYPES, Agreed, Case, Group

Backends = Mapping[str, Sequence[str]]

_REFERENCE = "reference"
# The composition of two ops, whose backends are pairs.
_BLOCK, _CONV, _SCAN = "selective_block", "causal_conv", "selective_scan"


@dataclass(frozen=True)
class Scale:
    """The sizes of a run.

    Args:
        shapes: rows, frames and channels of the comparisons with the reference.
        kernels: rows, frames and channels of the kernels.
        compiled: ops, each with such a size, whose reference is also run through `torch.compile`.
        preset, size: of the denoiser, and the pixels of a frame's side.
        control, long, sampling: numbers of frames.
        seconds: what the estimates are multiplied by.
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


FULL = Scale(
    # Rows, frames and channels are no multiples of a block, and attention has heads of 32 and of 64 features.
    shapes=((3, 1, 64), (5, 5, 128), (7, 17, 64), (3, 64, 128), (5, 257, 64)),
    kernels=((8192, 16, 128), (4096, 64, 128), (1024, 256, 128), (256, 1024, 128)),
    # The reference of the scan is a loop over the frames, which a compiler unrolls.
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
REHEARSAL = Scale(
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


# Rows of the paper's control (`bench.paper.control`) by name, the most valuable first.
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
_ROWS = {column.name: column for column in COLUMNS}


def groups(backends: Backends, scale: Scale) -> list[Group]:
    """All groups in the order of their value.

    Args:
        backends: op -> its backends, in the order in which the library tries them.
    """
    return [
        Group("agreement", lambda agreed: list(_agreement(backends, scale)), most_s=90),
        Group("kernels", lambda agreed: list(_kernels(backends, scale)), most_s=150),
        Group("control", lambda agreed: list(_training(backends, scale, scale.control, agreed))),
        Group("long clips", lambda agreed: list(_training(backends, scale, scale.long, agreed))),
        Group("sampling", lambda agreed: list(_sampling(backends, scale, agreed))),
        Group("compiled", lambda agreed: list(_compiled(scale))),
    ]


def _agreement(backends: Backends, scale: Scale) -> Iterator[Case]:
    pairs = [(op, backend) for op, names in sorted(backends.items()) for backend in names if backend != "cpu"]
    pairs += [(_BLOCK, f"{_CONV}={backend},{_SCAN}={backend}") for backend in ("triton", "torch")]
    # Kernels of ours first, as only a GPU can tell whether they are right; among them those of the network's steps.
    pairs.sort(key=lambda pair: ("triton" not in pair[1], pair[1] == _REFERENCE, pair[0] == "attention"))
    for dtype in reversed(DTYPES):
        for op, backend in pairs:
            # Its parts see all shapes; every kernel of Triton is compiled for several kinds of them.
            shapes = scale.shapes[::2] if op == _BLOCK else scale.shapes
            what = {"op": op, "backend": backend, "dtype": dtype, "shapes": [list(shape) for shape in shapes]}
            yield Case("agreement", what, scale.seconds * (10.0 if "triton" in backend else 0.7))


def _kernels(backends: Backends, scale: Scale) -> Iterator[Case]:
    first = ("selective_scan", "attention", "causal_conv")
    ops = [*first, *sorted(backends.keys() - set(first))]
    for dtype, shape, op in itertools.product(DTYPES, scale.kernels, ops):
        yield Case("kernels", _call(op, shape, dtype), 4.0 * scale.seconds)


def _compiled(scale: Scale) -> Iterator[Case]:
    for op, shape in scale.compiled:
        yield Case("kernels", _call(op, shape, "bfloat16") | {"compiled": True}, 25.0)


def _call(op: str, shape: Sequence[int], dtype: str) -> dict[str, Any]:
    rows, frames, channels = shape
    return {"op": op, "rows": rows, "frames": frames, "channels": channels, "dtype": dtype}


def _training(backends: Backends, scale: Scale, lengths: Sequence[int], agreed: Agreed) -> Iterator[Case]:
    for frames, dtype, name in itertools.product(lengths, DTYPES, TRAINING):
        row = _ROWS[name]
        if dtype in row.dtypes:
            estimate = scale.seconds * (2.0 + frames / 150)
            yield Case("training_step", _step(row, frames, dtype, scale), estimate, _pins(row, dtype, backends, agreed))


def _sampling(backends: Backends, scale: Scale, agreed: Agreed) -> Iterator[Case]:
    for frames, dtype, name in itertools.product(scale.sampling, DTYPES, SAMPLING):
        row, estimate = _ROWS[name], scale.seconds * (1.0 + frames / 250)
        yield Case("sampling_step", _step(row, frames, dtype, scale), estimate, _pins(row, dtype, backends, agreed))


def _step(row: Column, frames: int, dtype: str, scale: Scale) -> dict[str, Any]:
    """A setup of `bench.plan.plan`, with the backends of the row."""
    setup = {
        "mixer": row.mixer, "frames": frames, "clips": 1, "size": scale.size, "preset": scale.preset,
        "checkpointing": row.checkpointing, "dtype": dtype, "backends": list(row.backends),
    }  # fmt: skip
    return {"row": row.name, "setup": setup}


def _pins(row: Column, dtype: str, backends: Backends, agreed: Agreed) -> tuple[str, ...]:
    """Of every op that the row leaves open, the first backend that agrees with the reference."""
    fixed = [pin.partition("=")[0] for pin in row.backends]
    return tuple(
        f"{op}={name}"
        for op in sorted(backends)
        if op not in fixed and (name := _first(op, backends[op], dtype, agreed))
    )


def _first(op: str, names: Sequence[str], dtype: str, agreed: Agreed) -> str | None:
    """The first backend that agrees with the reference; None where that is not known of any."""
    return next((name for name in names if name != _REFERENCE and (op, name, dtype) in agreed), None)
