"""`zoo check`."""

from click.testing import CliRunner

from temporal_zoo import Mixer, get, register, registry
from temporal_zoo.cli import catalogue
from temporal_zoo.cli.main import zoo


def test_a_correct_mixer_passes():
    result = CliRunner().invoke(zoo, ["check", "identity"])
    assert result.exit_code == 0, result.output
    assert "identity: " in result.stdout
    assert "checks passed" in result.stdout


def test_a_failed_check_is_printed_with_its_reason_and_gives_exit_code_1(monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @register("leaky", summary="s", paper="p", time="T", memory="T")
    class Leaky(Mixer):
        causal = True

        def mix(self, x, lengths):
            return x + x.mean(1, keepdim=True)

    @register("unbuilt", summary="s", paper="p", time="T", memory="T")
    class Unbuilt(Mixer):
        causal = True

        def __init__(self, dim, config, shared=None):
            raise ZeroDivisionError("no width fits")

        def mix(self, x, lengths):
            return x

    result = CliRunner().invoke(zoo, ["check", "leaky", "unbuilt"])
    assert result.exit_code == 1
    assert "causality: declared causal, but" in result.stdout
    assert "unbuilt: cannot be built" in result.stdout
    assert "ZeroDivisionError: no width fits" in result.stdout
    assert "Traceback" not in result.output


def test_the_examples_of_a_mixer_are_checked_unless_the_name_has_options():
    examples = get("bimamba").mixer.Config.examples
    assert catalogue.specs("bimamba") == ["bimamba", *(f"bimamba:{example}" for example in examples)]
    assert catalogue.specs("bimamba:state=3") == ["bimamba:state=3"]
