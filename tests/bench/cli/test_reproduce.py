"""The whole command `zoo reproduce`."""

import json

import pytest
from click.testing import CliRunner

from temporal_zoo.cli.main import zoo


@pytest.mark.slow
def test_the_whole_reproduction(tmp_path):
    result = CliRunner().invoke(zoo, ["reproduce", "2403.07711", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "reproduce.json").read_text())
    assert all(size["agrees"] for size in found["sizes"])
    assert found["within_10_percent"] >= 15
    assert len(found["memory"]) == 19
