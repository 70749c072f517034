"""`zoo list`."""

import json

from click.testing import CliRunner

from temporal_zoo import get, names
from temporal_zoo.cli.main import zoo


def test_the_table_and_the_json_have_every_mixer():
    table = CliRunner().invoke(zoo, ["list"])
    rows = json.loads(CliRunner().invoke(zoo, ["list", "--json"]).stdout)
    assert table.exit_code == 0
    assert [row["name"] for row in rows] == names()
    for row in rows:
        assert f"  {row['name']} " in table.stdout
        assert {"summary", "time", "memory", "causal", "paper", "parameters"} <= row.keys()


def test_a_mixer_that_cannot_be_loaded_has_a_row_with_the_reason(monkeypatch):
    monkeypatch.setattr("temporal_zoo.cli.catalogue.names", lambda: ["identity", "no-such-mixer"])
    table = CliRunner().invoke(zoo, ["list"])
    assert table.exit_code == 0
    assert get("identity").summary in table.stdout
    assert "cannot be loaded: UnknownMixer" in table.stdout
