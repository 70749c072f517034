"""Options become cases; options that cannot be measured give a message with those that can."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from bench.sweep import suites
from bench.sweep.case import DIM, ROWS, Case, expand, parse_layers, parse_lengths
from bench.sweep.suites import SUITES
from diffusion.presets import PAPER, model_preset, paper
from temporal_zoo.config import ConfigError
from temporal_zoo.registry import UnknownMixer, names


def test_every_combination_once_and_short_lengths_first():
    cases = expand(layers="identity,identity", lengths="64, 16,64")
    assert [(c.level, c.mode, c.frames) for c in cases] == [
        (level, mode, frames) for level in ("mixer", "model") for mode in ("forward", "train") for frames in (16, 64)
    ]


def test_cases_of_a_curve_differ_only_in_frames():
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


def test_the_same_frames_in_all_rows():
    cases = expand(layers="identity", lengths="16,64,256", level="mixer", mode="train", total=1024)
    assert [case.rows for case in cases] == [64, 16, 4]
    assert len({case.setting for case in cases}) == 1
    assert expand(layers="identity", lengths="2048", level="mixer", mode="train", total=1024)[0].rows == 1


def test_precisions_and_backends_are_axes():
    pins = ["selective_scan=torch,cpu", "causal_conv=torch"]
    cases = expand(
        layers="bimamba", lengths="16", level="mixer", mode="train", dtype="float32, bfloat16", backends=pins
    )
    assert [(case.dtype, case.pins["selective_scan"]) for case in cases] == [
        (dtype, backend) for dtype in ("float32", "bfloat16") for backend in ("torch", "cpu")
    ]
    assert {case.pins["causal_conv"] for case in cases} == {"torch"}


def test_only_a_whole_model_takes_sampling_steps():
    cases = expand(layers="identity", lengths="16", mode="all")
    assert [(case.level, case.mode) for case in cases] == [
        ("mixer", "forward"), ("mixer", "train"), ("model", "forward"), ("model", "train"), ("model", "sample")
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no sampling step"):
        expand(layers="identity", lengths="16", level="mixer", mode="sample")


def test_every_case_has_a_different_label_for_file_names():
    cases = expand(layers="identity,bimamba:state=32", lengths="16,64", dtype="float32,bfloat16")
    assert len({case.label for case in cases}) == len(cases)
    assert all(re.fullmatch("[a-z0-9-]+", case.label) for case in cases)


@pytest.mark.parametrize("name", SUITES)
def test_suites_have_no_duplicate_cases(name):
    make, device, dtype, _ = SUITES[name]
    cases = make(device, dtype)
    assert len(set(cases)) == len(cases) > 20
    assert {(case.device, case.dtype) for case in cases} == {(device, dtype)}
    if name != "paper":
        assert {case.mixer for case in cases if case.level == "mixer"} == set(names())


def test_the_suite_paper_has_the_nineteen_networks_of_table_2():
    cases = [case for case in suites.paper("cpu", "float32") if case.mode == "train"]
    built = Counter()
    for case in cases:
        width = model_preset(case.preset).width
        kind = case.mixer.partition(":")[0]
        built[case.frames] += any((kind, width) == row for row in PAPER.values())
        if kind == "attn":
            assert case.mixer == paper("attn", width).model.mixer
    assert built == {16: 4, 64: 8, 256: 7}


@pytest.mark.parametrize("text", ["0", "-4", "16,-1", "16,many", "1.5", "", ","])
def test_invalid_lengths_are_refused(text):
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


@pytest.mark.parametrize("pin", ["attention", "=sdpa", "attention=", "a=b=c", "attention=sdpa,"])
def test_pins_without_op_or_backend_are_refused(pin):
    with pytest.raises(ConfigError, match="op=backend"):
        expand(layers="identity", lengths="16", backends=[pin])


def test_expansion_needs_no_torch():
    code = "import sys, bench.cli.bench; from bench.sweep.case import expand; expand(layers='bimamba', lengths='16')"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=False)
    assert done.returncode == 0
