"""Cases and groups of them.  Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

CaseKind = Literal["agreement", "kernels", "training_step", "sampling_step"]
# (op, backend, dtype) of the backends that agree with the reference.
Agreed = Collection[tuple[str, str, str]]
# In the order of the measurements.
DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True)
class GpuCase:
    """One measurement.

    Args:
        kind: the function of `child` that measures the case, and the kind of its record.
        what: plain values that identify the case and say what to measure.
        estimate_s: estimated seconds on a GPU, before the first measurement.
        pins: more backends of a step, as "op=backend".  They depend on the comparisons before, and do not identify
            the case.
    """

    kind: CaseKind
    what: Mapping[str, Any]
    estimate_s: float
    pins: tuple[str, ...] = ()

    @property
    def request(self) -> dict[str, Any]:
        """`what` with the pins in its setup, for the child process and the planner."""
        if not self.pins:
            return dict(self.what)
        setup = self.what["setup"]
        return {**self.what, "setup": {**setup, "backends": sorted([*setup["backends"], *self.pins])}}

    @property
    def key(self) -> str:
        """The text that identifies this case; a record of the case has the same key."""
        return key(self.kind, self.what)

    def __str__(self) -> str:
        values = {name: value for name, value in self.what.items() if name not in ("setup", "shapes")}
        setup = self.what.get("setup", {})
        frames = [f"{setup['frames']} frames", setup["dtype"]] if setup else []
        return " ".join([self.kind, *map(str, values.values()), *frames])


def key(kind: str, what: Mapping[str, Any]) -> str:
    """The text that identifies a case."""
    return json.dumps([kind, what], sort_keys=True)


@dataclass(frozen=True)
class Group:
    """Cases that share a child process.

    Args:
        cases: makes the cases when the group starts, from the backends that agree by then.
        most_s: limit of the first turn in seconds; the remaining cases wait until all other groups had a turn.
    """

    name: str
    cases: Callable[[Agreed], list[GpuCase]]
    most_s: float | None = None
