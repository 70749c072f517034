"""One new file of `diffusion.model.backbones`: its network trains, samples, is measured and is planned."""

import sys

import pytest
import torch
from click.testing import CliRunner

from bench.plan.devices import device
from bench.plan.plan import Planner, Setup
from bench.sweep import workloads
from bench.sweep.case import Case
from diffusion import presets
from diffusion.model import backbones
from diffusion.sampling.generate import load_network
from diffusion.training import checkpoint
from temporal_zoo.cli.main import zoo

TOY = '''
from einops import rearrange
from torch import nn

from diffusion.model.backbone import Backbone
from diffusion.model.blocks import LevelEmbedding
from diffusion.model.slots import Slots


class Network(Backbone):
    """One convolution, two temporal blocks in a row, and one more convolution."""

    @staticmethod
    def slots(config):
        return Slots(("first", "second"), {"all": ("first", "second")})

    def build(self, config, blocks):
        self.embed = LevelEmbedding(config.width, config.width)
        self.into = nn.Conv2d(config.channels, config.width, 1)
        self.first = blocks.build("first", config.width, config.width)
        self.second = blocks.build("second", config.width, config.width)
        self.out = nn.Conv2d(config.width, config.channels, 1)

    def predict(self, x, noise, lengths):
        frames = x.shape[1]
        level = self.embed(noise.flatten())
        y = self.into(rearrange(x, "b t c h w -> (b t) c h w")) + level[:, :, None, None]
        for block in (self.first, self.second):
            y = y if block is None else block(y, level, frames, lengths)
        return rearrange(self.out(y), "(b t) c h w -> b t c h w", t=frames)
'''


@pytest.fixture(autouse=True)
def toy(small, tmp_path, monkeypatch):
    """The file, and a preset with this backbone."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "toy.py").write_text(TOY)
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(tmp_path / "files")])
    config = small("model.backbone=toy", "model.slots=()", "model.mixer=attn:heads=2:relative_bias=yes")
    monkeypatch.setitem(presets.PRESETS, "tiny", lambda: config)
    monkeypatch.chdir(tmp_path)
    yield config
    sys.modules.pop("diffusion.model.backbones.toy", None)


def run_zoo(command, code=0):
    result = CliRunner().invoke(zoo, command.split())
    assert result.exit_code == code, result.output
    return result


def test_it_is_listed_and_built(toy):
    assert backbones.names() == ["toy", "unet"]
    network = backbones.build_network(toy.model, seed=0)
    assert list(network.temporal_blocks()) == ["first", "second"]
    assert [name for name, _ in network.named_parameters() if name.startswith("shared.")] == [
        "shared.first.table.weight"
    ]
    x, noise = torch.randn(2, 3, 3, 5, 5), torch.tensor([1, 2])
    padded = x.clone()
    padded[1, 2:] = torch.nan
    y = network(padded, noise, torch.tensor([3, 2]))
    torch.testing.assert_close(y[1, :2], network(x[1:, :2], noise[1:])[0])
    assert not y[1, 2:].any()


def test_it_trains_and_samples(tmp_path):
    run_zoo("train --out run --steps 1 --set data.size=6 --set model.size=6")
    assert "to step 2" in run_zoo("train --out run --steps 2 --set data.size=6 --set model.size=6").stderr
    network, config, _ = load_network(checkpoint.find(tmp_path / "run"), torch.device("cpu"))
    assert type(network).__module__ == "diffusion.model.backbones.toy"
    assert config.model.backbone == "toy"
    run_zoo("sample run --count 1 --steps 2")
    refused = run_zoo("train --out run --set model.backbone=unet", 2).stderr
    assert "model.backbone: toy in the checkpoint, unet asked for" in refused


def test_it_is_measured_and_planned():
    case = Case(
        level="model", mode="train", mixer="bimamba", frames=2, dtype="float32", device="cpu", backends=(),
        preset="tiny", clips=1, size=8,
    )  # fmt: skip
    workload = workloads.build(case)
    assert list(workload.module.temporal_blocks()) == ["first", "second"]
    workload.step()
    plan = Planner(device("cpu:2GiB")).plan(Setup(mixer="identity", frames=2, size=8, preset="tiny"))
    assert plan.bytes.peak > 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.backbone=tyo", "no backbone is named 'tyo' (did you mean \"toy\"?); choose from toy, unet"),
        ("model.slots=fist", "no slot is named 'fist' (did you mean \"first\"?); this network has first, second"),
    ],
)
def test_misspelt_names_are_refused_with_the_nearest_one(option, message):
    assert message in run_zoo(f"train --out run --set {option}", 2).stderr
