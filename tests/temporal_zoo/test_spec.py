"""Specs: the name and the options of a mixer, as text and back."""

import copy
import pickle
from dataclasses import dataclass

import pytest
import torch

from temporal_zoo import InvalidInput, Mixer, MixerSpec, build, get, names, registry
from temporal_zoo.config import Config, ConfigError, option
from temporal_zoo.mixers.bimamba import BiMamba

SPECS = [f"{name}:{example}" for name in names() for example in get(name).mixer.Config.examples]


@pytest.mark.parametrize("text", ["bimamba", "bimamba:state=32", "bimamba:state=32:conv=3"])
def test_a_text_is_parsed_and_printed_unchanged(text):
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


def test_a_flavour_is_replaced_by_its_options_and_explicit_options_win():
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
def test_texts_that_are_not_specs_are_refused(text, words):
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
def test_wrong_options_are_refused_with_the_options_that_exist(text, words):
    with pytest.raises(ConfigError) as refusal:
        build(text, 8)
    for word in words:
        assert word in str(refusal.value)


class Longer(BiMamba):
    """A subclass that is not registered and has the options of its base class."""


class Noisy(BiMamba):
    """A subclass that is not registered and has an option of its own."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BiMamba.Config):
        noise: float = option(0.0, "standard deviation")


class Unnamed(Mixer):
    """A mixer that is not registered."""

    causal = True

    def mix(self, x, lengths):
        return x


def same_function(one, other):
    """Whether two mixers have the same class, options and, with the same weights, the same outputs."""
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 5, one.dim)
    return type(one) is type(other) and one.config == other.config and torch.equal(one(x), other(x))


@pytest.mark.parametrize("text", [*registry._files(), *SPECS])
def test_a_mixers_spec_holds_every_option_and_builds_an_equal_mixer(text):
    mixer = build(text, 8)
    assert [name for name, _ in mixer.spec.options] == list(mixer.config.to_dict())
    assert mixer.spec == MixerSpec.parse(text).explicit() == MixerSpec.parse(str(mixer.spec))
    assert same_function(mixer, build(mixer.spec, mixer.dim))
    assert same_function(mixer, build(str(mixer.spec), mixer.dim))


def test_the_spec_survives_copies_and_subclasses():
    mixer = build("bimamba:state=3", 8)
    assert copy.deepcopy(mixer).spec == pickle.loads(pickle.dumps(mixer)).spec == mixer.spec
    longer = Longer(8, mixer.config)
    assert longer.spec == copy.deepcopy(longer).spec == mixer.spec


@pytest.mark.parametrize("kind", [Noisy, Unnamed])
def test_a_mixer_that_no_spec_can_name_says_to_register_it(kind):
    with pytest.raises(InvalidInput, match=f"{kind.__name__} has no name and so no spec: register the class"):
        _ = kind(8, kind.Config()).spec


@dataclass(frozen=True, kw_only=True)
class Texts(Config):
    label: str = option("", "a text")


def test_values_that_no_text_can_express_are_left_out_or_refused():
    assert MixerSpec.of("toy", Texts()).options == ()
    assert MixerSpec.of("toy", Texts(label="a=b")).options == (("label", "a=b"),)
    with pytest.raises(ConfigError, match="toy:label is 'a:b', which the text of a spec cannot hold"):
        MixerSpec.of("toy", Texts(label="a:b"))


def test_the_representation_shows_the_options_that_differ_from_the_defaults():
    assert repr(build("bimamba", 8)).startswith("BiMamba(\n  dim=8\n")
    assert repr(build("bimamba:state=3:merge=mean", 8)).startswith("BiMamba(\n  dim=8, state=3, merge='mean'\n")
    assert repr(build("identity", 8)) == "Identity(dim=8)"
    assert repr(Unnamed(8, Unnamed.Config())) == "Unnamed(dim=8)"
