"""`zoo info`."""

import json

from click.testing import CliRunner

from temporal_zoo.cli.main import zoo


def test_info_shows_the_equation_options_sizes_and_backends():
    result = CliRunner().invoke(zoo, ["info", "bimamba:state=8"])
    facts = json.loads(CliRunner().invoke(zoo, ["info", "bimamba:state=8", "--json"]).stdout)
    assert result.exit_code == 0
    for words in ("y = out_proj(", "2403.07711", "36,928", "selective_scan: ", "bimamba:state=8:conv=2", "expand"):
        assert words in result.stdout
    assert facts["parameters"] == 36928
    assert (facts["spec"], facts["causal"], facts["passes"]) == ("bimamba:state=8", False, [False, True])
    assert set(facts["backends"]["cpu"]) == {"selective_scan", "causal_conv"}
    state = next(option for option in facts["options"] if option["name"] == "state")
    assert (state["default"], state["value"], state["type"]) == ("16", "8", "whole number")


def test_the_default_bimamba_has_the_size_of_the_paper():
    assert json.loads(CliRunner().invoke(zoo, ["info", "bimamba", "--json"]).stdout)["parameters"] == 43072
