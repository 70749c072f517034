"""The result of one cell of an ablation at one seed, and its file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusion.ablations import AblationError
from temporal_zoo._support.files import read_json, write_json

REMEDY = "delete it, and the trial runs again"


@dataclass(frozen=True)
class Result:
    """The result of one cell at one seed.

    cell: axis -> value, such as {"mixer": "s4d", "directions": "both"}.  reference: True for a baseline outside the
    crossed axes.  measures: name -> value, lower is better; "held_out" (denoising loss) first, then "fvd", or the
    distance that needs no weights under its own name.  curve: (step, held-out loss).  costs: "parameters",
    "stored_bytes" (counted, one clip, training), "step_s" (median seconds of a training step), and others.
    contact_sheet: a PNG, relative to the folder of the ablation.  sources: digest of the source files that computed it.

    Raises: AblationError when a number is not finite; a trial that diverged has failed and has no result.
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
        """Cell and seed, such as "s4d, both, seed 1"; failures are listed under this name."""
        return f"{cell_name(self.cell)}, seed {self.seed}"

    def save(self, path: Path) -> None:
        """Writes a JSON file, whole or not at all.  Raises: OSError with the path."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Result:
        """Reads a file of `save`.  Raises: AblationError, DamagedFile when the file is damaged."""
        return cls.from_json(read_json(path, REMEDY))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Result:
        """Converts the JSON object of a file.  Raises: AblationError when it is not a result."""
        try:
            curve = [(int(step), float(loss)) for step, loss in content["curve"]]
            return cls(**dict(content) | {"curve": curve})
        except (KeyError, TypeError) as error:
            raise AblationError(
                f"the file is not a result of an ablation ({error}); delete it, and the trial runs again"
            ) from error

    def _numbers(self) -> Iterator[tuple[str, float]]:
        yield from self.measures.items()
        yield from self.costs.items()
        yield from ((f"held-out loss at step {step}", loss) for step, loss in self.curve)


def cell_name(cell: Mapping[str, str]) -> str:
    """The values of a cell; a number follows the name of its axis, such as "bimamba, frames 64"."""
    return ", ".join(f"{axis} {value}" if is_number(value) else value for axis, value in cell.items())


def is_number(value: str) -> bool:
    """Whether the value of an axis is a number; cells along such an axis have an order."""
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
