"""Which mixer goes where."""

import pytest

from diffusion.model.slots import assign, slot_level, slot_names
from temporal_zoo.config import ConfigError
from temporal_zoo.registry import UnknownMixer


def texts(text, levels=4, chosen=()):
    return {slot: str(spec) for slot, spec in assign(text, levels, chosen).items()}


def test_slots_in_the_order_of_a_clip_and_their_levels():
    levels = {slot: slot_level(slot, 4) for slot in slot_names(4)}
    assert levels == {
        "stem": 0, "down0": 0, "down1": 1, "down2": 2, "down3": 3, "mid": 3, "up0": 3, "up1": 2, "up2": 1, "up3": 0,
    }  # fmt: skip
    assert list(levels) == slot_names(4)


def test_one_mixer_fills_every_slot():
    assert texts("bimamba:state=8") == dict.fromkeys(slot_names(4), "bimamba:state=8")


def test_specs_come_out_canonical():
    assert set(texts("attn:features=64:heads=2").values()) == {"attn:heads=2"}


def test_groups_are_halves_of_the_levels():
    hybrid = texts("bimamba@high+flash@low")
    assert [slot for slot in hybrid if hybrid[slot] == "flash"] == ["down2", "down3", "mid", "up0", "up1"]
    odd = texts("bimamba@high+flash@low", levels=3)
    assert [slot for slot in odd if odd[slot] == "flash"] == ["down2", "mid", "up0"]


def test_sides():
    sides = texts("mamba@down + s4d@up + identity@mid")
    assert [slot for slot in sides if sides[slot] == "mamba"] == ["stem", "down0", "down1", "down2", "down3"]
    assert sides["mid"] == "identity"
    assert {sides[f"up{i}"] for i in range(4)} == {"s4d"}


@pytest.mark.parametrize("text", ["flash@mid+mamba@low+bimamba", "bimamba+mamba@low+flash@mid"])
def test_a_name_wins_over_a_group_and_a_group_over_the_rest(text):
    found = texts(text, levels=2)
    assert found == {
        "stem": "bimamba", "down0": "bimamba", "down1": "mamba", "mid": "flash", "up0": "mamba", "up1": "bimamba",
    }  # fmt: skip


def test_only_the_chosen_slots_need_a_mixer():
    assert texts("flash@low", chosen=("up0", "mid")) == {"mid": "flash", "up0": "flash"}


@pytest.mark.parametrize(
    ("text", "chosen", "error", "told"),
    [
        ("bimmba", (), UnknownMixer, 'did you mean "bimamba"'),
        ("bimamba:sate=8", (), ConfigError, 'did you mean "state"'),
        (
            "bimamba@hihg",
            (),
            ConfigError,
            "'bimamba@hihg' names no slot (did you mean \"high\"?); there are high, low,",
        ),
        ("bimamba@high", (), ConfigError, "no mixer into down2, down3, mid, up0, up1; add a part without @"),
        (
            "bimamba@high+flash@low",
            ("mid", "up0"),
            ConfigError,
            "'bimamba@high' fills no slot: this network has mid, up0; name one of these",
        ),
        ("bimamba+flash", (), ConfigError, "two mixers into 'stem': bimamba and flash"),
        ("bimamba@down+flash@high", (), ConfigError, "two mixers into"),
        (
            "flash",
            ("donw1",),
            ConfigError,
            "no slot is named 'donw1' (did you mean \"down1\"?); with 4 levels there are",
        ),
        ("flash", ("up4",), ConfigError, "no slot is named 'up4'"),
        ("", (), ConfigError, "names no mixer"),
    ],
)
def test_what_cannot_be_is_told(text, chosen, error, told):
    with pytest.raises(error) as caught:
        assign(text, 4, chosen)
    assert told in str(caught.value)
