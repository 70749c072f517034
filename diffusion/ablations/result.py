"""What one cell of an ablation measured at one seed, and the file that keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusion.ablations import AblationError
from temporal_zoo._support.files import read_json, write_json

REMEDY = "delete it, and this trial runs again"


@dataclass(frozen=True)
class Result:
    """One cell at one seed.

    cell: axis -> value, such as {"mixer": "s4d", "directions": "both"}.  reference: whether it is a line of reference
    outside of the crossed axes.  measures: name -> value, lower is better; "held_out" (denoising loss) first, then
    "fvd", or the weight-free distance under its own name.  curve: (step, held-out loss).  costs: "parameters",
    "stored_bytes" (counted, one clip, training), "step_s" (median seconds of a training step), and others.
    contact_sheet: a PNG, relative to the folder of the ablation.  sources: digest of the source files that made it.

    Raises: AblationError when a number is not finite; a trial that diverged has failed, and has no result.
    """

    cell: dict[str, str]
    seed: int
    reference: bool
    measures: dict[str, float]
    curve: list[tuple[int, float]]
    costs: dict[str, float]
    contact_sheet: str | None = None
    sources: str | None = None

    def __post_init__(self) -> None:
        if wrong := [name for name, value in self._numbers() if not math.isfinite(value)]:
            raise AblationError(f"{self.name}: not finite: {', '.join(wrong)}; training has probably diverged")

    @property
    def name(self) -> str:
        """The cell and the seed in words, such as "s4d, both, seed 1"; also the key of a trial that failed."""
        return f"{cell_name(self.cell)}, seed {self.seed}"

    def save(self, path: Path) -> None:
        """Writes a JSON file, whole or not at all.  Raises: DataError when that is not possible."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Result:
        """Reads what `save` wrote.  Raises: AblationError, DataError when the file is damaged."""
        return cls.from_json(read_json(path, REMEDY))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Result:
        """From the JSON object of a file or of a line of a record.  Raises: AblationError when it is no result."""
        try:
            curve = [(int(step), float(loss)) for step, loss in content["curve"]]
            return cls(**dict(content) | {"curve": curve})
        except (KeyError, TypeError) as error:
            raise AblationError(
                f"this is no result of an ablation ({error}); delete it, and run the cell again"
            ) from error

    def _numbers(self) -> Iterator[tuple[str, float]]:
        yield from self.measures.items()
        yield from self.costs.items()
        yield from ((f"held-out loss at step {step}", loss) for step, loss in self.curve)


def cell_name(cell: Mapping[str, str]) -> str:
    """A cell in words: its values, and beside numbers what they are of, such as "bimamba, frames 64"."""
    return ", ".join(f"{axis} {value}" if is_number(value) else value for axis, value in cell.items())


def is_number(value: str) -> bool:
    """Whether the value of an axis is a number, so that cells along the axis have an order."""
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
