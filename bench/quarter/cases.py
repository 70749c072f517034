"""Cases and groups of them.  Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["agreement", "kernels", "training_step", "sampling_step"]
# (op, backend, dtype) of the lines that agree with the reference.
Agreed = Collection[tuple[str, str, str]]
# In the order in which they are measured.
DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Args:
        kind: which function of `child` measures it, and the kind of its record.
        what: plain values that say what is measured; equal values are the same case.
        estimate_s: seconds on a GPU, before anything was measured.
        pins: of a step, further backends as "op=backend".  They follow from the comparisons that came before, and do
            not make another case.
    """

    kind: Kind
    what: Mapping[str, Any]
    estimate_s: float
    pins: tuple[str, ...] = ()

    @property
    def asked(self) -> dict[str, Any]:
        """What a process and the planner are told: `what`, with the pins in its setup."""
        if not self.pins:
            return dict(self.what)
        setup = self.what["setup"]
        return {**self.what, "setup": {**setup, "backends": sorted([*setup["backends"], *self.pins])}}

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
