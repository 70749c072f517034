"""Groups of cases, the most valuable first.  Torch-free."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["agreement", "kernels", "training_step", "sampling_step"]
# (op, backend, dtype) of the lines that agree with the reference.
Agreed = Collection[tuple[str, str, str]]
Backends = Mapping[str, Sequence[str]]

DTYPES = ("bfloat16", "float32")
REFERENCE = "reference"
# The composition of two ops, whose backends are pairs.
_BLOCK, _CONV, _SCAN = "selective_block", "causal_conv", "selective_scan"


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Args:
        kind: which function of `child` measures it, and the kind of its record.
        what: plain values that say what is measured; equal values are the same case.
        estimate_s: seconds on a GPU, before anything was measured.
    """

    kind: Kind
    what: Mapping[str, Any]
    estimate_s: float

    @property
    def key(self) -> str:
        """Equal for equal cases, also of records."""
        return key(self.kind, self.what)

    def __str__(self) -> str:
        told = {name: value for name, value in self.what.items() if name not in ("setup", "shapes")}
        setup = self.what.get("setup", {})
        frames = [f"{setup['frames']} frames", setup["dtype"]] if setup else []
        return " ".join([self.kind, *map(str, told.values()), *frames])


def key(kind: str, what: Mapping[str, Any]) -> str:
    """The text that names a case."""
    return json.dumps([kind, what], sort_keys=True)


@dataclass(frozen=True)
class Group:
    """Cases that share a process.  They are made when the group begins, of what is known of the backends by then.

    `most_s`: seconds of its first turn; what is left waits until the other groups had theirs.
    """

    name: str
    cases: Callable[[Agreed], list[Case]]
    most_s: float | None = None


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


@dataclass(frozen=True)
class Row:
    """A row of the paper's control: the mixer, and what is recomputed in the backward pass.

    `attention` is the backend of all attention in the network, or None for the first that agrees.
    """

    name: str
    mixer: str
    checkpointing: Literal["none", "mixers"] = "none"
    attention: str | None = None
    dtypes: tuple[str, ...] = DTYPES


_HELD = "attn:relative_bias=yes"
CONTROL = (
    Row("bimamba", "bimamba"),
    Row("attention, fused", "flash"),
    Row("attention, fused, recomputed", "flash", "mixers"),
    Row("attention with bias, weights held", _HELD, attention=REFERENCE),
    Row("attention with bias, weights held, recomputed", _HELD, "mixers", attention=REFERENCE),
    Row("mamba", "mamba"),
    Row("identity: no temporal layer", "identity"),
    # The cuDNN kernel takes half precision only.
    Row("attention, fused by cuDNN", "flash", attention="cudnn", dtypes=("bfloat16",)),
)
SAMPLING = (
    Row("bimamba", "bimamba"),
    Row("attention, fused", "flash"),
    Row("attention with bias, weights held", _HELD, attention=REFERENCE),
    Row("mamba", "mamba"),
    Row("s4d", "s4d"),
    Row("identity: no temporal layer", "identity"),
)


def groups(backends: Backends, scale: Scale) -> list[Group]:
    """All groups in the order of their value.

    Args:
        backends: op -> its backends, in the order in which the library tries them.
    """
    return [
        Group("agreement", lambda agreed: list(_agreement(backends, scale)), most_s=60),
        Group("kernels", lambda agreed: list(_kernels(scale)), most_s=150),
        Group("control", lambda agreed: list(_training(backends, scale, scale.control, agreed))),
        Group("long clips", lambda agreed: list(_training(backends, scale, scale.long, agreed))),
        Group("sampling", lambda agreed: list(_sampling(backends, scale, agreed))),
        Group("compiled", lambda agreed: list(_compiled(scale))),
    ]


def _agreement(backends: Backends, scale: Scale) -> Iterator[Case]:
    pairs = [(op, backend) for op, names in sorted(backends.items()) for backend in names if backend != "cpu"]
    # Kernels of ours first: only a GPU can tell whether they are right.
    pairs.sort(key=lambda pair: (pair[1] != "triton", pair[1] == REFERENCE))
    pairs.insert(sum(backend == "triton" for _, backend in pairs), (_BLOCK, f"{_CONV}=triton,{_SCAN}=triton"))
    pairs.append((_BLOCK, f"{_CONV}=torch,{_SCAN}=torch"))
    for dtype in reversed(DTYPES):
        for op, backend in pairs:
            what = {"op": op, "backend": backend, "dtype": dtype, "shapes": [list(shape) for shape in scale.shapes]}
            yield Case("agreement", what, scale.seconds * (5.0 if "triton" in backend else 0.7))


def _kernels(scale: Scale) -> Iterator[Case]:
    ops = ("selective_scan", "attention", "causal_conv", "diagonal_ssm")
    for dtype, shape, op in itertools.product(DTYPES, scale.kernels, ops):
        yield Case("kernels", _call(op, shape, dtype), 4.0 * scale.seconds)


def _compiled(scale: Scale) -> Iterator[Case]:
    for op, shape in scale.compiled:
        yield Case("kernels", _call(op, shape, "bfloat16") | {"compiled": True}, 25.0)


def _call(op: str, shape: Sequence[int], dtype: str) -> dict[str, Any]:
    rows, frames, channels = shape
    return {"op": op, "rows": rows, "frames": frames, "channels": channels, "dtype": dtype}


def _training(backends: Backends, scale: Scale, lengths: Sequence[int], agreed: Agreed) -> Iterator[Case]:
    for frames, dtype, row in itertools.product(lengths, DTYPES, CONTROL):
        if dtype in row.dtypes and row.attention in (None, *backends["attention"]):
            estimate = scale.seconds * (2.0 + frames / 150)
            yield Case("training_step", _setup(row, frames, dtype, scale, backends, agreed), estimate)


def _sampling(backends: Backends, scale: Scale, agreed: Agreed) -> Iterator[Case]:
    for frames, dtype, row in itertools.product(scale.sampling, DTYPES, SAMPLING):
        estimate = scale.seconds * (1.0 + frames / 250)
        yield Case("sampling_step", _setup(row, frames, dtype, scale, backends, agreed), estimate)


def _setup(row: Row, frames: int, dtype: str, scale: Scale, backends: Backends, agreed: Agreed) -> dict[str, Any]:
    pins = {op: backend for op in sorted(backends) if (backend := _first(op, backends[op], dtype, agreed))}
    pins |= {"attention": row.attention} if row.attention else {}
    setup = {
        "mixer": row.mixer, "frames": frames, "clips": 1, "size": scale.size, "preset": scale.preset,
        "checkpointing": row.checkpointing, "dtype": dtype,
        "backends": [f"{op}={backend}" for op, backend in sorted(pins.items())],
    }  # fmt: skip
    return {"row": row.name, "setup": setup}


def _first(op: str, names: Sequence[str], dtype: str, agreed: Agreed) -> str | None:
    """The first backend that agrees with the reference; None where that is not known of any."""
    return next((name for name in names if name != REFERENCE and (op, name, dtype) in agreed), None)
