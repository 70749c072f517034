"""The texts of mixers in configurations and checkpoints keep their meaning when a mixer or an option is renamed."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from click.testing import CliRunner

from diffusion.config import ModelConfig
from diffusion.model import mixer_text
from diffusion.model.backbones import build_network, unet
from diffusion.model.slots import assign
from diffusion.sampling.generate import load_network
from temporal_zoo import Mixer, register, registry
from temporal_zoo.cli.main import zoo
from temporal_zoo.config import option


class Delay(Mixer):
    """y[t] = x[t - frames]; formerly `echo`, with an option `lag`."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        frames: int = option(1, "delay in frames", least=0)
        renamed: ClassVar[dict[str, str]] = {"lag": "frames"}

    causal = True

    def mix(self, x, lengths):
        return torch.nn.functional.pad(x, (0, 0, self.config.frames, 0))[:, : x.shape[1]]


@pytest.fixture(autouse=True)
def _delay():
    register("delay", summary="a test", paper="none", time="1", memory="1", formerly=("echo",))(Delay)
    yield
    del registry._entries["delay"]


@pytest.mark.filterwarnings("ignore:.* is now called:DeprecationWarning")
def test_an_old_text_names_the_renamed_mixer():
    old = "echo:lag=2@high+identity@low"
    assert mixer_text.explicit(old) == "delay:frames=2@high+identity@low"
    assert mixer_text.short(old) == "delay:frames=2@high+identity@low"
    slots = unet.slots(2)
    assert assign(old, slots) == assign("delay:frames=2@high+identity@low", slots)


@pytest.mark.filterwarnings("ignore:.* is now called:DeprecationWarning")
def test_an_old_configuration_builds_the_renamed_mixer():
    config = ModelConfig.from_dict({"mixer": "echo:lag=2", "width": 8, "groups": 2, "multipliers": [1]})
    mixers = [block.mixer for block in build_network(config).temporal_blocks().values()]
    assert {str(mixer.spec) for mixer in mixers} == {"delay:frames=2"}


@pytest.mark.filterwarnings("ignore:.* is now called:DeprecationWarning")
def test_the_key_of_an_old_text_does_not_change(monkeypatch):
    monkeypatch.setitem(mixer_text.SILENT, "echo", {"lag": "1"})
    assert mixer_text.key("echo") == "echo"
    assert mixer_text.key("echo:lag=2") == "echo:lag=2"


class Echo(Delay):
    """`Delay` before it was renamed."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        lag: int = option(1, "delay in frames", least=0)

    def mix(self, x, lengths):
        return torch.nn.functional.pad(x, (0, 0, self.config.lag, 0))[:, : x.shape[1]]


@pytest.mark.filterwarnings("ignore:.* is now called:DeprecationWarning")
def test_a_run_resumes_after_its_mixer_was_renamed(tmp_path, rendered):
    def train(mixer, steps):
        words = f"train --mixer {mixer} --steps {steps} --out {tmp_path / 'run'} --set data.cache={rendered}"
        sizes = ("data.frames=4", "data.size=16", "batch=1", "model.width=8", "model.groups=4", "model.blocks=1")
        words += "".join(f" --set {size}" for size in sizes)
        result = CliRunner().invoke(zoo, words.split(), catch_exceptions=False)
        assert result.exit_code == 0, result.output

    register("echo", summary="a test", paper="none", time="1", memory="1")(Echo)
    try:
        train("echo:lag=2", 1)
    finally:
        del registry._entries["echo"]
    train("delay:frames=2", 2)
    train("echo:lag=2", 3)
    network, config, _ = load_network(tmp_path / "run" / "checkpoint.pt", torch.device("cpu"))
    assert config.model.mixer == "delay:frames=2"
    assert {str(block.mixer.spec) for block in network.temporal_blocks().values()} == {"delay:frames=2"}
