"""The number of parameters of the network of arXiv 2403.07711, on the meta device.

The totals of the paper include parameters that its code never trains (`bench.paper.facts.Model.untrained`).  Our
networks do not hold them.
"""

from itertools import pairwise

import pytest
import torch

from bench.paper.facts import BIAS_BUCKETS, MODELS, NOISE_WIDTH_1024, ROTARY_FREQUENCIES, VARIANTS
from diffusion.config import ModelConfig
from diffusion.model.backbones import build_network
from diffusion.model.blocks import FullAttention, LinearAttention, ResidualBlock
from diffusion.presets import PAPER, model_preset

SLOTS = ["stem", "down0", "down1", "down2", "down3", "mid", "up0", "up1", "up2", "up3"]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(config):
    with torch.device("meta"):
        return build_network(config)


@pytest.mark.parametrize("size", MODELS)
def test_the_paper_s_models(size):
    model, config = MODELS[size], model_preset(f"paper-{size}")
    assert (config.width, config.heads) == (model.width, model.heads)
    assert count(on_meta(config)) == model.parameters - model.untrained
    assert f"{model.parameters / 1e6:.3g}M" == size


def test_every_row_of_the_paper_is_a_preset():
    assert {size: (model.mixer, model.width) for size, model in MODELS.items()} == PAPER


# The same backbone at width 64 with what the paper's code, or an earlier version of it, offers besides.
@pytest.mark.parametrize("mixer", VARIANTS)
def test_other_mixers_in_the_paper_s_backbone(mixer):
    config = model_preset("paper-57.5M").replace(mixer=mixer)
    assert count(on_meta(config)) == VARIANTS[mixer] - BIAS_BUCKETS * config.heads


def test_other_widths_of_the_time_embedding():
    paper = model_preset("paper-56.3M")
    assert count(on_meta(paper.replace(time_width=4))) == 37_811_475 - ROTARY_FREQUENCIES
    assert count(on_meta(paper.replace(time_width=16))) == NOISE_WIDTH_1024 - ROTARY_FREQUENCIES


def test_bimamba_at_width_72():
    config = model_preset("paper-71.2M").replace(mixer="bimamba")
    assert count(on_meta(config)) == 72_673_059 - BIAS_BUCKETS * 9


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
        "mixers": 4_194_320 - ROTARY_FREQUENCIES,
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
