"""Options become cases; what cannot be measured is refused with a message that says what can."""

import subprocess
import sys

import pytest

from bench.case import DIM, ROWS, Case, expand, parse_layers, parse_lengths
from temporal_zoo.config import ConfigError
from temporal_zoo.registry import UnknownMixer


def test_every_combination_once_and_short_lengths_first():
    cases = expand(layers="identity,identity", lengths="64, 16,64")
    assert [(c.level, c.mode, c.frames) for c in cases] == [
        (level, mode, frames) for level in ("mixer", "model") for mode in ("forward", "train") for frames in (16, 64)
    ]


def test_a_curve_changes_nothing_but_its_frames():
    short, long = expand(layers="identity", lengths="16,256", level="mixer", mode="train")
    assert (short.rows, short.dim) == (ROWS, DIM)
    assert short.replace(frames=256) == long
    assert short.setting == long.setting


def test_fields_of_the_other_level_are_none():
    bare, whole = expand(layers="identity", lengths="16", mode="forward")
    assert (bare.preset, bare.clips, bare.size) == (None, None, None)
    assert (whole.rows, whole.dim) == (None, None)


def test_options_reach_the_case():
    (case,) = expand(
        layers="identity", lengths="3", level="mixer", mode="train", rows=2, dim=5, dtype="bfloat16", device="cuda:1",
        backends=["selective_scan=torch"],
    )  # fmt: skip
    assert case == Case(
        mixer="identity", level="mixer", mode="train", frames=3, rows=2, dim=5, dtype="bfloat16", device="cuda:1",
        backends=("selective_scan=torch",),
    )  # fmt: skip
    assert case.pins == {"selective_scan": "torch"}
    assert Case.from_dict(case.to_dict()) == case
    assert len({case, case.replace(frames=4)}) == 2


@pytest.mark.parametrize("text", ["0", "-4", "16,-1", "16,many", "1.5", "", ","])
def test_lengths_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match=r"whole number|whole numbers"):
        parse_lengths(text)


def test_unknown_mixers_get_the_nearest_name_and_the_list():
    with pytest.raises(UnknownMixer, match=r'did you mean "bimamba".*identity'):
        parse_layers("identity,bimanba")
    with pytest.raises(ConfigError, match=r"no option 'stat'.*state"):
        parse_layers("bimamba:stat=3")
    with pytest.raises(ConfigError, match="names no mixer"):
        parse_layers(" , ")


def test_rows_without_a_bare_mixer_are_refused():
    with pytest.raises(ConfigError, match="bare mixer"):
        expand(layers="identity", lengths="16", level="model", rows=4)


@pytest.mark.parametrize("pin", ["attention", "=sdpa", "attention=", "a=b=c"])
def test_pins_without_op_or_body_are_refused(pin):
    with pytest.raises(ConfigError, match="op=body"):
        expand(layers="identity", lengths="16", backends=[pin])


def test_expansion_needs_no_torch():
    code = "import sys, bench.cli; from bench.case import expand; expand(layers='bimamba', lengths='16')"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=False)
    assert done.returncode == 0
