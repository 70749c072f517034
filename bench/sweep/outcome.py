"""The outcome of a case: how it ended and what was measured, as values for records and between processes.  No torch."""

from __future__ import annotations

import statistics
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

import numpy as np

from temporal_zoo._support.record import RecordError
from temporal_zoo._support.statistics import Interval, geometric_mean

Status = Literal["ok", "out_of_memory", "unsupported", "disagrees", "failed", "crashed", "timed_out"]

# Status other than "ok" -> its words in tables.
STATUS_WORDS = {
    "out_of_memory": "out of memory",
    "unsupported": "unsupported",
    "disagrees": "disagrees",
    "failed": "failed",
    "crashed": "crashed",
    "timed_out": "timed out",
}
# Outcomes that are errors: the command ends with exit code 1.
ERRORS = ("disagrees", "failed", "crashed", "timed_out")

# Upper limit of measured numbers, in milliseconds or bytes; later arithmetic would overflow above it.
_MAX_NUMBER = 1e18
# Lower limit of times in milliseconds, for the same reason.
_MIN_MS = 1e-9
# Tables and pages mark a time whose margin is larger than this fraction.
WIDE = 0.10


@dataclass(frozen=True)
class Times:
    """Milliseconds of one step: percentiles over the timed rounds.

    `steady` says that the median had settled.  `processor` is the mean processor time of a step, over all threads; None
    when a GPU did the work.  `each` holds the rounds in order.  For several processes `medians` holds the median of
    each process, `p50` is their geometric mean, and all other fields are over the rounds of all processes.
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
    def combine(cls, parts: Sequence[Times]) -> Times:
        """Combines the times of several processes that ran the same case."""
        if len(parts) == 1:
            return parts[0]
        each = tuple(ms for part in parts for ms in part.each)
        medians = tuple(part.p50 for part in parts)
        p10, p90 = np.percentile(each or medians, [10, 90])
        processor = [part.processor for part in parts if part.processor is not None]
        return cls(
            float(p10),
            geometric_mean(medians).value,
            float(p90),
            sum(part.rounds for part in parts),
            sum(part.warmups for part in parts),
            all(part.steady for part in parts),
            statistics.fmean(processor) if processor else None,
            each,
            medians,
        )

    @property
    def processes(self) -> int:
        """Number of processes that were timed."""
        return max(1, len(self.medians))

    @property
    def interval(self) -> Interval:
        """`p50` with its 95 % interval over processes (Student's t over the logarithms of their medians).

        For a single process, the interval holds 80 % of its rounds; rounds of one process differ less than processes.
        """
        return Interval(self.p50, self.p10, self.p90) if self.processes == 1 else geometric_mean(self.medians)

    @property
    def margin(self) -> float:
        """Half-width of the interval as a fraction of `p50`."""
        if self.processes == 1:
            return (self.p90 - self.p10) / 2 / self.p50 if self.p50 else 0.0
        return self.interval.high / self.interval.value - 1

    @property
    def wide(self) -> bool:
        """Whether the margin is larger than `WIDE`."""
        return self.margin > WIDE

    @property
    def waited(self) -> bool:
        """Whether steps waited for processors that other programs used, for at least a fifth of their time."""
        return self.processor is not None and self.processor < 0.8 * self.p50


@dataclass(frozen=True)
class Memory:
    """Bytes before a step and at its peak; `counted` is "peak allocated" on CUDA and "peak resident set" on the CPU.

    `reserved` is what CUDA's allocator held at the peak, with unused blocks; None on the CPU.
    """

    counted: str
    before: int
    peak: int
    reserved: int | None = None

    @property
    def above(self) -> int:
        """The peak minus the bytes before the step."""
        return self.peak - self.before


@dataclass(frozen=True)
class Agreement:
    """The largest error of the backends that ran.

    `max_error` is the largest difference in any output or gradient, relative to that tensor's largest entry; None if
    nothing was compared.  `unchecked` are backends that the mixer pins itself, so that the reference could not run.
    """

    max_error: float | None = None
    checked: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a case ended; measured fields are None unless `status` is "ok".

    `stored_bytes` is None outside training.  `backends` lists the backends that ran for each op.  `declared` is the
    growth of "time" and "memory" that the mixer declares.  `options` are all options of the mixer, so that a record
    keeps its meaning when a default changes.  `trace` is the file name of a profile.
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
        """Reads the fields that `to_dict` writes; ignores others, and accepts older records, which have fewer.

        Raises:
            RecordError: a field is missing or has an impossible value; the message names the field.
        """
        values = dict(record) | {"status": record.get("outcome")}
        values |= {"memory": record.get("memory_bytes"), "agreement": record.get("gate")}
        values.setdefault("backends", record.get("bodies", {}))  # the name in records of version 0.1
        outcome: Self = _read(cls, values)
        if (times := outcome.time_ms) and not _MIN_MS <= times.p10 <= times.p50 <= times.p90:
            raise RecordError(
                f"times of {times.p10}, {times.p50} and {times.p90} ms cannot be percentiles 10, 50 and 90"
            )
        if times and not all(each >= _MIN_MS for each in times.medians):
            raise RecordError('"medians" contains a time of 0 ms')
        if outcome.memory and outcome.memory.above < 0:
            raise RecordError("the peak memory is below the memory in use before the step")
        return outcome


def _read(kind: type, values: Mapping[str, Any]) -> Any:
    """A dataclass from plain values; unknown names are ignored."""
    hints, arguments = typing.get_type_hints(kind), {}
    for each in fields(kind):
        if each.name in values:
            arguments[each.name] = _checked(values[each.name], hints[each.name], each.name)
    try:
        return kind(**arguments)
    except TypeError as error:  # a field without a default
        raise RecordError(f"a field is missing: {error}") from error


def _checked(value: Any, kind: Any, name: str) -> Any:
    """`value` as a field of type `kind`: numbers must be finite and not negative; lists become tuples."""
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
    if type(value) in numbers and 0 <= value <= _MAX_NUMBER:  # false for NaN
        return value
    shown = repr(value)
    raise RecordError(f'"{name}" cannot be {shown if len(shown) <= 60 else shown[:60] + "..."}')


def first_line(error: BaseException) -> str:
    """The type and the first line of an exception."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
