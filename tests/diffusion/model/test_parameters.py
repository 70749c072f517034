"""The number of parameters of the network of arXiv 2403.07711, on the meta device.

The paper's totals include numbers that its code counts and never trains: with attention the 16 frequencies of the
rotary embedding, with state space models the table of the relative bias, 32 numbers per head, which only attention
uses.  Our networks have neither.
"""

from itertools import pairwise

import pytest
import torch

from diffusion.config import ModelConfig
from diffusion.model.backbones import build_network
from diffusion.model.blocks import FullAttention, LinearAttention, ResidualBlock
from diffusion.presets import PAPER, model_preset

ROTARY = 16
TABLE = 32  # per head
SLOTS = ["stem", "down0", "down1", "down2", "down3", "mid", "up0", "up1", "up2", "up3"]

TOTALS = {
    "14.1M": 14_083_475,
    "56.3M": 56_279_827,
    "71.2M": 71_221_555,
    "225M": 225_011_219,
    "900M": 899_828_755,
    "14.5M": 14_498_179,
    "57.5M": 57_477_891,
    "175M": 175_350_339,
    "229M": 228_881_923,
    "913M": 913_468_419,
    "56.9M": 56_900_355,
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(config):
    with torch.device("meta"):
        return build_network(config)


@pytest.mark.parametrize("size", TOTALS)
def test_the_paper_s_models(size):
    config = model_preset(f"paper-{size}")
    assert config.heads == config.width // 8
    not_ours = ROTARY if PAPER[size][0] == "attn" else TABLE * config.heads
    assert count(on_meta(config)) == TOTALS[size] - not_ours
    assert f"{TOTALS[size] / 1e6:.3g}M" == size


def test_every_row_of_the_paper_is_a_preset():
    assert list(PAPER) == list(TOTALS)


# The same backbone at width 64 with other mixers of the paper's code, or of an earlier version of it.
OTHERS = {
    "s4d:bidirectional=no": 53_568_259,
    "s4d": 55_051_011,
    "s4d:flavour=mlp:bidirectional=no": 54_259_459,
    "s4d:flavour=mlp": 55_377_667,
    "s4d:flavour=v1": 61_218_563,
    "s4d:flavour=v1:bidirectional=no": 57_704_195,
    "s4d:flavour=v1:mlp=0": 59_114_243,
    "s4d:flavour=v1:mlp=0:bidirectional=no": 55_599_875,
    "mamba:flavour=literal": 56_713_987,
    "bimamba:flavour=vim:merge=sum": 57_115_395,
    "identity": 52_085_507,
}


@pytest.mark.parametrize("mixer", OTHERS)
def test_other_mixers_in_the_paper_s_backbone(mixer):
    config = model_preset("paper-57.5M").replace(mixer=mixer)
    assert count(on_meta(config)) == OTHERS[mixer] - TABLE * config.heads


def test_other_widths_of_the_time_embedding():
    paper = model_preset("paper-56.3M")
    assert count(on_meta(paper.replace(time_width=4))) == 37_811_475 - ROTARY
    assert count(on_meta(paper.replace(time_width=16))) == 44_940_051 - ROTARY  # 1024, the width that the paper prints


def test_bimamba_at_width_72():
    config = model_preset("paper-71.2M").replace(mixer="bimamba")
    assert count(on_meta(config)) == 72_673_059 - TABLE * 9


BIMAMBA = [43_072, 43_072, 143_488, 516_352, 1_950_208, 1_950_208, 516_352, 143_488, 43_072, 43_072]
ATTENTION = [131_072 * c for c in (1, 1, 2, 4, 8, 8, 4, 2, 1, 1)]


@pytest.mark.parametrize(("size", "expected"), [("57.5M", BIMAMBA), ("56.3M", ATTENTION)])
def test_parameters_of_the_mixer_in_each_slot(size, expected):
    blocks = on_meta(model_preset(f"paper-{size}")).temporal_blocks()
    assert list(blocks) == SLOTS
    assert [count(block.mixer) for block in blocks.values()] == expected
    assert sum(block.gain.numel() for block in blocks.values()) == 2_048


def test_parts_of_the_backbone():
    network = on_meta(model_preset("paper-56.3M"))
    residuals = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    timed = [m for m in residuals if m.modulation is not None]
    resamples = [level.resample for level in [*network.down, *network.up]]
    parts = {
        "time embedding": count(network.embed),
        "time projections": sum(count(m.modulation) for m in timed),
        "residual blocks without them": sum(count(m) - count(m.modulation) for m in timed),
        "linear attention": sum(count(m) for m in network.modules() if isinstance(m, LinearAttention)),
        "full attention": sum(count(m) for m in network.modules() if isinstance(m, FullAttention)),
        "resampling": sum(map(count, resamples)),
        "stem": count(network.stem),
        "final block": count(network.final) + count(network.to_out),
        "bias table": count(network.shared),
        "norms before mixers": sum(block.gain.numel() for block in network.temporal_blocks().values()),
        "mixers": sum(count(block.mixer) for block in network.temporal_blocks().values()),
    }
    assert len(timed) == 18
    assert parts == {
        "time embedding": 4_329_472,
        "time projections": 16_260_864,
        "residual blocks without them": 26_575_488,
        "linear attention": 1_510_272,
        "full attention": 524_800,
        "resampling": 2_753_408,
        "stem": 9_472,
        "final block": 119_427,
        "bias table": 256,
        "norms before mixers": 2_048,
        "mixers": 4_194_320 - ROTARY,
    }
    assert sum(parts.values()) == count(network)


def test_parts_of_each_resolution():
    network = on_meta(model_preset("paper-57.5M"))
    assert [[count(block) for block in level.blocks] for level in network.down] == [
        [336_384, 336_384],
        [754_816, 820_224],
        [1_968_384, 2_230_272],
        [5_771_776, 6_819_840],
    ]
    assert [[count(block) for block in level.blocks] for level in network.up] == [
        [4_262_144, 2_230_272],
        [1_328_256, 820_224],
        [463_424, 336_384],
        [381_504, 336_384],
    ]
    assert [count(network.mid_first), count(network.mid_second)] == [6_819_840] * 2
    assert [count(level.spatial) for level in network.down] == [65_664, 131_328, 262_656, 525_312]
    assert [count(level.spatial) for level in network.up] == [262_656, 131_328, 65_664, 65_664]
    assert [count(level.resample) for level in network.down] == [65_600, 262_272, 1_048_832, 0]
    assert [count(level.resample) for level in network.up] == [1_048_832, 262_272, 65_600, 0]


def test_options_that_the_paper_lacks_add_parameters():
    plain = on_meta(ModelConfig(mixer="identity"))
    assert count(on_meta(ModelConfig(mixer="identity", zero_init=True))) == count(plain) + 2_048
    widths = [64, 64, 128, 256, 512, 512, 256, 128, 64, 64]
    extra = sum(2 * width * (64 * 32 + 1) for width in widths)
    assert count(on_meta(ModelConfig(mixer="identity", modulated=True))) == count(plain) + extra
    for chosen in pairwise(["none", "bottom", "everywhere"]):
        less, more = (count(on_meta(ModelConfig(mixer="identity", spatial=spatial))) for spatial in chosen)
        assert less < more
