"""Specs: which mixer with which options, as text and back."""

import pytest

from temporal_zoo import MixerSpec, build, get, names
from temporal_zoo.config import ConfigError

SPECS = [f"{name}:{example}" for name in names() for example in get(name).mixer.Config.examples]


@pytest.mark.parametrize("text", ["bimamba", "bimamba:state=32", "bimamba:state=32:conv=3"])
def test_text_survives(text):
    assert str(MixerSpec.parse(text)) == text
    assert str(MixerSpec.parse(f" {text} ")) == text


@pytest.mark.parametrize("text", [*names(), *SPECS])
def test_the_canonical_text_names_the_same_mixer(text):
    spec = MixerSpec.parse(text)
    assert MixerSpec.parse(str(spec.canonical())).config() == spec.config()
    assert spec.canonical().canonical() == spec.canonical()


def test_the_canonical_text_drops_defaults_and_orders_options():
    spec = MixerSpec.parse("bimamba:conv=2:expand=2:state=8")
    assert str(spec.canonical()) == "bimamba:state=8:conv=2"


def test_a_flavour_stands_for_its_options_and_what_is_written_beside_it_wins():
    options = get("bimamba").mixer.Config.flavours["vim"]
    assert MixerSpec.parse("bimamba:flavour=vim").config() == MixerSpec.parse(f"bimamba:{options}").config()
    beside = MixerSpec.parse("bimamba:flavour=vim:merge=sum").config()
    assert beside == MixerSpec.parse("bimamba:flavour=vim").config().replace(merge="sum")
    with pytest.raises(ConfigError, match=r"no flavour 'vin'.*vim"):
        MixerSpec.parse("bimamba:flavour=vin").config()


def test_specs_are_values():
    assert len({MixerSpec.parse("bimamba:state=8"), MixerSpec.parse("bimamba:state=8"), MixerSpec("bimamba")}) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no mixer"),
        (":state=3", "names no mixer"),
        ("bimamba:", "is not an option"),
        ("bimamba:state", "'state' in 'bimamba:state' is not an option"),
        ("bimamba:state=", "is not an option"),
        ("bimamba:=3", "is not an option"),
        ("bimamba:state=3:state=4", "sets 'state' twice"),
    ],
)
def test_what_is_no_spec_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        MixerSpec.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bimamba:stat=3", ["no option 'stat'", '"state"', "conv", "zoo info bimamba"]),
        ("identity:state=3", ["no option 'state'", "none"]),
        ("bimamba:state=many", ["bimamba:state", "'many'", "whole number"]),
        ("bimamba:state=0", ["Config.state", "0", "at least 1"]),
    ],
)
def test_wrong_options_are_refused_with_what_there_is(text, words):
    with pytest.raises(ConfigError) as refusal:
        build(text, 8)
    for word in words:
        assert word in str(refusal.value)
