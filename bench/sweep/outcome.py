"""How a case ended and what was measured: values that a record holds and one process hands to another.  Torch-free."""

from __future__ import annotations

import math
import statistics
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

import numpy as np

from temporal_zoo._support.record import RecordError
from temporal_zoo._support.statistics import half_width_95

Status = Literal["ok", "out_of_memory", "unsupported", "disagrees", "failed", "crashed", "timed_out"]

# What each end but "ok" is called in tables.
ENDS = {
    "out_of_memory": "out of memory",
    "unsupported": "unsupported",
    "disagrees": "disagrees",
    "failed": "failed",
    "crashed": "crashed",
    "timed_out": "timed out",
}
# Ends that are a fault and not an answer.
FAULTS = ("disagrees", "failed", "crashed", "timed_out")

# No measured number is larger, in milliseconds or bytes; a larger one would leave the range of floats in what follows.
_MOST = 1e18
# A time that may be off by more than this share says so.
WIDE = 0.10


@dataclass(frozen=True)
class Times:
    """Milliseconds of one step: percentiles over the rounds that count.  `steady` says that the median had settled.

    `processor` is the mean time that processors worked on a step, over all threads; None when another device did.
    `each` are the rounds themselves, in their order.  Of several processes `medians` are theirs, `p50` is the geometric
    mean of these, and all else is over the rounds of all.
    """

    p10: float
    p50: float
    p90: float
    rounds: int
    warmups: int
    steady: bool
    processor: float | None = None
    each: tuple[float, ...] = ()
    medians: tuple[float, ...] = ()

    @classmethod
    def together(cls, parts: Sequence[Times]) -> Times:
        """The times of several processes that ran the same case."""
        if len(parts) == 1:
            return parts[0]
        each = tuple(ms for part in parts for ms in part.each)
        medians = tuple(part.p50 for part in parts)
        p10, p90 = np.percentile(each or medians, [10, 90])
        worked = [part.processor for part in parts if part.processor is not None]
        return cls(
            float(p10),
            math.exp(statistics.fmean(map(math.log, medians))),
            float(p90),
            sum(part.rounds for part in parts),
            sum(part.warmups for part in parts),
            all(part.steady for part in parts),
            statistics.fmean(worked) if worked else None,
            each,
            medians,
        )

    @property
    def processes(self) -> int:
        """How many processes these are from."""
        return max(1, len(self.medians))

    @property
    def spread(self) -> float:
        """Half of the distance between the 10th and the 90th percentile, as a share of the median."""
        return (self.p90 - self.p10) / 2 / self.p50 if self.p50 else 0.0

    @property
    def margin(self) -> float:
        """By which share `p50` may be off: Student's 95 % interval over the processes, of their logarithms.

        A single process has none, since rounds of one differ less than processes do; then it is the spread of rounds.
        """
        if self.processes == 1:
            return self.spread
        return math.expm1(half_width_95([math.log(median) for median in self.medians]))

    @property
    def interval(self) -> tuple[float, float]:
        """The lowest and the highest time within the margin; of a single process 80 % of its rounds."""
        if self.processes == 1:
            return self.p10, self.p90
        return self.p50 / (1 + self.margin), self.p50 * (1 + self.margin)

    @property
    def wide(self) -> bool:
        """Whether it may be off by more than `WIDE`."""
        return self.margin > WIDE

    @property
    def waited(self) -> bool:
        """Whether steps spent much of their time waiting for a processor that other programs had."""
        return self.processor is not None and self.processor < 0.8 * self.p50


@dataclass(frozen=True)
class Memory:
    """Bytes before a step and at its peak; `counted` is "peak allocated" on CUDA and "peak resident set" on the CPU.

    `reserved` is what CUDA's allocator held at that peak, its unused blocks included; None on the CPU.
    """

    counted: str
    before: int
    peak: int
    reserved: int | None = None

    @property
    def above(self) -> int:
        """Peak above what was there before."""
        return self.peak - self.before


@dataclass(frozen=True)
class Agreement:
    """How far the backends that ran were from the reference.

    `max_error` is the largest difference in any output or gradient relative to that tensor's largest entry, and None
    when there was nothing to compare.  `unchecked` are backends that the mixer itself insists on, so that the reference
    could not take their place.
    """

    max_error: float | None = None
    checked: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a case ended; what was measured is None unless `status` is "ok".

    `stored_bytes` belongs to training: elsewhere nothing is stored.  `backends` says which backend ran for each op, and
    `declared` how the mixer says that its "time" and "memory" grow.  `options` are all options of the mixer, so that a
    record keeps its meaning when a default changes.  `trace` names the file of a profile.
    """

    status: Status
    reason: str = ""
    time_ms: Times | None = None
    memory: Memory | None = None
    stored_bytes: int | None = None
    num_parameters: int | None = None
    backends: dict[str, list[str]] = field(default_factory=dict)
    agreement: Agreement | None = None
    declared: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None
    trace: str | None = None
    traceback: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        memory = self.memory and {**asdict(self.memory), "above": self.memory.above}
        return {
            "outcome": self.status,
            "reason": self.reason,
            "time_ms": self.time_ms and asdict(self.time_ms),
            "memory_bytes": memory,
            "stored_bytes": self.stored_bytes,
            "num_parameters": self.num_parameters,
            "backends": self.backends,
            "gate": self.agreement and asdict(self.agreement),
            "declared": self.declared,
            "options": self.options,
            "threads": self.threads,
            "trace": self.trace,
            "traceback": self.traceback,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Reads what `to_dict` wrote, among other fields or not, and older records, which know fewer of them.

        Raises:
            RecordError: a field is missing or holds what cannot have been measured; the message names it.
        """
        values = dict(record) | {"status": record.get("outcome")}
        values |= {"memory": record.get("memory_bytes"), "agreement": record.get("gate")}
        values.setdefault("backends", record.get("bodies", {}))  # the name in records of version 0.1
        found: Self = _read(cls, values)
        if (times := found.time_ms) and not 0 < times.p10 <= times.p50 <= times.p90:
            raise RecordError(
                f"times of {times.p10}, {times.p50} and {times.p90} ms cannot be percentiles 10, 50 and 90"
            )
        if times and not all(each > 0 for each in times.medians):
            raise RecordError('"medians" holds a time of 0 ms')
        if found.memory and found.memory.above < 0:
            raise RecordError("the peak of memory is below what was in use before")
        return found


def _read(kind: type, values: Mapping[str, Any]) -> Any:
    """A dataclass from plain values; names that it does not know are left out."""
    hints, kept = typing.get_type_hints(kind), {}
    for each in fields(kind):
        if each.name in values:
            kept[each.name] = _checked(values[each.name], hints[each.name], each.name)
    try:
        return kind(**kept)
    except TypeError as error:  # a field without a default
        raise RecordError(f"a field is missing: {error}") from error


def _checked(value: Any, kind: Any, name: str) -> Any:
    """`value` as a field of type `kind`: numbers are finite and not negative, lists are tuples."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is types.UnionType:
        return None if value is None else _checked(value, args[0], name)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_checked(each, args[0], name) for each in value)
    if origin is list and isinstance(value, list):
        return [_checked(each, args[0], name) for each in value]
    if origin is dict and isinstance(value, dict):
        return {key: _checked(each, args[1], name) for key, each in value.items()}
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__") and isinstance(value, Mapping):
        return _read(kind, value)
    if origin is Literal and value in args:
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    numbers: tuple[type, ...] = {int: (int,), float: (int, float)}.get(kind, ())
    if type(value) in numbers and 0 <= value <= _MOST:  # NaN is not
        return value
    shown = repr(value)
    raise RecordError(f'"{name}" cannot be {shown if len(shown) <= 60 else shown[:60] + "..."}')
