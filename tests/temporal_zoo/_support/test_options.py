"""Options that several commands share."""

import click
import pytest
from click.testing import CliRunner

from temporal_zoo._support.options import FiniteNumber


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "soon", "0.5", "11"])
def test_only_finite_numbers_within_the_bounds_are_accepted(value):
    command = click.Command("it", params=[click.Option(["--limit"], type=FiniteNumber(min=1, max=10))])
    result = CliRunner().invoke(command, ["--limit", value])
    assert (result.exit_code, result.stderr.count("Error: ")) == (2, 1)
    assert "--limit" in result.stderr
    assert CliRunner().invoke(command, ["--limit", "2.5"]).exit_code == 0
