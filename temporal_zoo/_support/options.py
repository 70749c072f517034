"""Command-line options that several commands share."""

from __future__ import annotations

import math
from typing import Any

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class FiniteNumber(click.FloatRange):
    """A number within bounds, neither infinite nor NaN (click.FloatRange accepts NaN)."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
