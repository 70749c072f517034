"""The text that assigns mixers to slots."""

import pytest

from diffusion.model.backbones import unet
from diffusion.model.slots import Slots, assign
from temporal_zoo.config import ConfigError
from temporal_zoo.registry import UnknownMixer

SLOTS = ("stem", "down0", "down1", "down2", "down3", "mid", "up0", "up1", "up2", "up3")


def texts(text, resolutions=4, chosen=()):
    return {slot: str(spec) for slot, spec in assign(text, unet.slots(resolutions), chosen).items()}


def test_slots_of_the_unet_stand_in_the_order_in_which_a_clip_passes_them():
    assert unet.slots(4).names == SLOTS
    assert unet.slots(1).names == ("stem", "down0", "mid", "up0")


def test_one_mixer_fills_every_slot():
    assert texts("bimamba:state=8") == dict.fromkeys(SLOTS, "bimamba:state=8")


def test_a_backbone_without_groups():
    slots = Slots(("first", "second"))
    assert list(assign("bimamba@second+flash", slots)) == ["first", "second"]
    with pytest.raises(ConfigError, match="names no slot; choose from first, second"):
        assign("bimamba@high+flash", slots)


def test_assigned_specs_are_canonical():
    assert set(texts("attn:features=64:heads=2").values()) == {"attn:heads=2"}


def test_groups_are_halves_of_the_resolutions():
    hybrid = texts("bimamba@high+flash@low")
    assert [slot for slot in hybrid if hybrid[slot] == "flash"] == ["down2", "down3", "mid", "up0", "up1"]
    odd = texts("bimamba@high+flash@low", resolutions=3)
    assert [slot for slot in odd if odd[slot] == "flash"] == ["down2", "mid", "up0"]


def test_groups_are_sides():
    sides = texts("mamba@down + s4d@up + identity@mid")
    assert [slot for slot in sides if sides[slot] == "mamba"] == ["stem", "down0", "down1", "down2", "down3"]
    assert sides["mid"] == "identity"
    assert {sides[f"up{i}"] for i in range(4)} == {"s4d"}


@pytest.mark.parametrize("text", ["flash@mid+mamba@low+bimamba", "bimamba+mamba@low+flash@mid"])
def test_a_name_takes_precedence_over_a_group_and_a_group_over_the_rest(text):
    found = texts(text, resolutions=2)
    assert found == {
        "stem": "bimamba", "down0": "bimamba", "down1": "mamba", "mid": "flash", "up0": "mamba", "up1": "bimamba",
    }  # fmt: skip


def test_only_the_chosen_slots_need_a_mixer():
    assert texts("flash@low", chosen=("up0", "mid")) == {"mid": "flash", "up0": "flash"}


@pytest.mark.parametrize(
    ("text", "chosen", "error", "message"),
    [
        ("bimmba", (), UnknownMixer, 'did you mean "bimamba"'),
        ("bimamba:sate=8", (), ConfigError, 'did you mean "state"'),
        (
            "bimamba@hihg",
            (),
            ConfigError,
            "'bimamba@hihg' names no slot (did you mean \"high\"?); choose from high, low,",
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
            "no slot is named 'donw1' (did you mean \"down1\"?); this network has stem,",
        ),
        ("flash", ("up4",), ConfigError, "no slot is named 'up4'"),
        ("", (), ConfigError, "names no mixer"),
    ],
)
def test_texts_that_are_refused(text, chosen, error, message):
    with pytest.raises(error) as caught:
        assign(text, unet.slots(4), chosen)
    assert message in str(caught.value)
