"""Configuration records: strict types, bounds, conversion to plain values and back, assignments as text."""

from dataclasses import dataclass
from typing import Literal

import pytest

from temporal_zoo.config import Config, ConfigError, describe, from_text, hints, nearest, option, to_text
from temporal_zoo.spec import MixerSpec


@dataclass(frozen=True, kw_only=True)
class Part(Config):
    width: int = option(8, "width of the part", least=1, most=64)
    name: str = option("plain", "a name")


@dataclass(frozen=True, kw_only=True)
class Whole(Config):
    part: Part = option(Part(), "an inner record")
    rate: float = option(0.5, "a number", least=0)
    on: bool = option(True, "a switch")
    merge: Literal["sum", "mean"] = option("sum", "a choice")
    depth: Literal[1, 2] = option(1, "a choice of numbers")
    widths: tuple[int, ...] = option((1, 2), "a list", least=1)
    limit: int | None = option(None, "a number or none")
    seed: int | Literal["clock"] = option(0, "a number or a word")
    weights: dict[str, float] = option({}, "named numbers")
    mixer: MixerSpec = option(MixerSpec("identity"), "a type with its own parser")


CHANGED = {
    "part": Part(width=3),
    "rate": 1.25,
    "on": False,
    "merge": "mean",
    "depth": 2,
    "widths": (5,),
    "limit": 7,
    "seed": "clock",
    "weights": {"a": 1.5},
    "mixer": MixerSpec.parse("bimamba:state=8"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_every_type_is_converted_to_plain_values_and_back(name):
    config = Whole(**{name: CHANGED[name]})
    plain = config.to_dict()
    assert type(plain[name]) in (int, float, str, bool, list, dict, type(None))
    assert Whole.from_dict(plain) == config != Whole()


@pytest.mark.parametrize("name", CHANGED)
def test_every_type_is_converted_to_text_and_back(name):
    assert from_text(to_text(CHANGED[name]), hints(Whole)[name], name) == CHANGED[name]
    assert Whole().override([f"{name}={to_text(CHANGED[name])}"]) == Whole(**{name: CHANGED[name]})


@pytest.mark.parametrize("value", [(), None, True])
def test_empty_values_have_a_text(value):
    kind = {"()": tuple[int, ...], "None": int | None, "True": bool}[str(value)]
    assert to_text(value)
    assert from_text(to_text(value), kind, "spot") == value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": "fast"}, ["Whole.rate", "'fast'", "number"]),
        ({"rate": True}, ["Whole.rate", "True"]),
        ({"rate": -1}, ["Whole.rate", "-1", "at least 0"]),
        ({"rate": float("nan")}, ["Whole.rate", "nan", "finite"]),
        ({"rate": float("inf")}, ["Whole.rate", "inf", "finite"]),
        ({"rate": float("-inf")}, ["Whole.rate", "-inf", "finite"]),
        ({"rate": 10**400}, ["Whole.rate", "number"]),
        ({"weights": {"a": float("inf")}}, ["Whole.weights", "inf", "finite"]),
        ({"on": 1}, ["Whole.on", "yes or no"]),
        ({"merge": "max"}, ["Whole.merge", "one of sum, mean"]),
        ({"depth": True}, ["Whole.depth", "one of 1, 2"]),
        ({"widths": (1, 2.5)}, ["Whole.widths", "2.5", "whole number"]),
        ({"widths": (1, 0)}, ["Whole.widths", "0", "at least 1"]),
        ({"widths": 3}, ["Whole.widths", "list of whole numbers"]),
        ({"limit": "none"}, ["Whole.limit", "'none'"]),
        ({"seed": "moon"}, ["Whole.seed", "whole number or one of clock"]),
        ({"weights": {"a": "b"}}, ["Whole.weights[a]", "'b'"]),
        ({"part": {"width": 3}}, ["Whole.part", "Part"]),
    ],
)
def test_the_error_names_the_field_and_the_accepted_values(changes, words):
    with pytest.raises(ConfigError) as refusal:
        Whole(**changes)
    for word in words:
        assert word in str(refusal.value)


def test_bounds_are_inclusive_and_apply_to_inner_records():
    assert (Part(width=1).width, Part(width=64).width) == (1, 64)
    with pytest.raises(ConfigError, match="at most 64"):
        Whole().override(["part.width=65"])


def test_whole_numbers_become_numbers_and_lists_become_tuples():
    config = Whole(rate=2, widths=[3, 4])
    assert (config.rate, type(config.rate)) == (2.0, float)
    assert config.widths == (3, 4)


def test_records_do_not_share_a_mutable_default():
    first = Whole()
    first.weights["a"] = 1.0
    assert Whole().weights == {}


def test_the_error_for_an_unknown_name_gives_the_nearest_and_the_full_list():
    with pytest.raises(
        ConfigError, match=r"no option 'wdith' \(did you mean \"width\"\?\); its options are width, name"
    ):
        Part.from_dict({"wdith": 3})
    with pytest.raises(ConfigError, match=r"'ratte'.*rate"):
        Whole().override(["ratte=3"])
    with pytest.raises(ConfigError, match=r"Part has no option 'x'"):
        Whole().override(["part.x=3"])


@pytest.mark.parametrize("text", ["rate", "", "part"])
def test_texts_that_are_not_assignments_are_refused(text):
    with pytest.raises(ConfigError, match="is not an assignment"):
        Whole().override([text])


def test_a_path_into_a_plain_field_is_refused():
    with pytest.raises(ConfigError, match=r"Whole\.rate has no parts"):
        Whole().override(["rate.x=3"])


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("True", True), ("0", False), ("off", False)])
def test_the_usual_words_for_true_and_false_are_read(text, value):
    assert Whole().override([f"on={text}"]).on is value


@pytest.mark.parametrize("text", ["[5, 6]", "(5,6)", "5,6", " 5 , 6 "])
def test_the_usual_ways_to_write_a_list_are_read(text):
    assert Whole().override([f"widths={text}"]).widths == (5, 6)


@pytest.mark.parametrize("text", ["on=maybe", "part.width=2.5", "merge=max", "weights={", "limit=x", "rate="])
def test_the_error_for_a_wrong_text_names_the_field(text):
    field = text.partition("=")[0].rpartition(".")[2]
    with pytest.raises(ConfigError, match=rf"\.{field} cannot be"):
        Whole().override([text])


def test_later_assignments_win_and_the_original_does_not_change():
    config = Whole()
    assert config.override(["rate=1", "rate=2", "part.width=3"]).rate == 2
    assert config == Whole()


def test_records_are_frozen_and_replace_checks():
    with pytest.raises(AttributeError):
        Part().width = 3
    assert Part().replace(width=3) == Part(width=3)
    with pytest.raises(ConfigError):
        Part().replace(width=0)


def test_describe_lists_every_field_in_order():
    assert describe(Part) == [
        ("width", "whole number", "8", "width of the part"),
        ("name", "text", "plain", "a name"),
    ]
    assert [row[0] for row in describe(Whole)] == list(CHANGED)


def test_nearest_is_empty_when_no_word_is_near():
    assert nearest("zzz", ["alpha"]) == ""
    assert nearest("alpa", ["alpha", "beta"]) == ' (did you mean "alpha"?)'
