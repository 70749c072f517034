"""The budget of an ablation: the quantity in which all cells are made equal.  No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self, get_args

from diffusion.ablations import AblationError

Kind = Literal["steps", "parameters", "stored_bytes", "seconds"]


@dataclass(frozen=True)
class Budget:
    """The quantity in which all cells are made equal, and its target.

    kind: "steps" changes no cell.  For "parameters" and "stored_bytes" (one clip, in training), `fit_budget.fit` solves
    for the width of the network; for "seconds" (of training, at the speed measured once on one thread), for the number
    of steps.
    target: the value for all cells; None is the value of the first cell as it is written.
    tolerance: the largest relative deviation that counts as a match.  A cell that deviates more is trained too, and is
    reported without a match.
    """

    kind: Kind = "steps"
    target: float | None = None
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise AblationError(f"unknown budget {self.kind!r}; choose from {', '.join(get_args(Kind))}")
        if self.kind == "seconds" and self.target is None:
            raise AblationError("a budget of seconds needs a target; write for example seconds=120 for each training")
        if self.kind == "steps" and self.target is not None:
            raise AblationError("a budget of steps takes no target; set the number with --set train.steps=...")
        if self.target is not None and not 0 < self.target < math.inf:
            raise AblationError(f"the target of a budget must be finite and above zero, not {self.target:g}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "parameters" or "seconds=120".  Raises: AblationError for any other form."""
        kind, equals, target = text.partition("=")
        try:
            return cls(kind, float(target) if equals else None)  # type: ignore[arg-type]
        except AblationError:
            raise
        except ValueError:
            raise AblationError(f"{target!r} in {text!r} is not a number; write for example seconds=120") from None
