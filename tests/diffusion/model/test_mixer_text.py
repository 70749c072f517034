"""The texts of mixers in configurations and checkpoints keep their meaning when a mixer or an option is renamed."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from diffusion.config import ModelConfig
from diffusion.model import mixer_text
from diffusion.model.backbone import Backbone
from diffusion.model.slots import assign
from temporal_zoo import Mixer, register, registry
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
    assert assign(old, 2) == assign("delay:frames=2@high+identity@low", 2)


@pytest.mark.filterwarnings("ignore:.* is now called:DeprecationWarning")
def test_an_old_configuration_builds_the_renamed_mixer():
    config = ModelConfig.from_dict({"mixer": "echo:lag=2", "width": 8, "groups": 2, "multipliers": [1]})
    mixers = [block.mixer for block in Backbone(config).temporal_blocks().values()]
    assert {str(mixer.spec) for mixer in mixers} == {"delay:frames=2"}


@pytest.mark.filterwarnings("ignore:.* is now called:DeprecationWarning")
def test_the_key_of_an_old_text_does_not_change(monkeypatch):
    monkeypatch.setitem(mixer_text.SILENT, "echo", {"lag": "1"})
    assert mixer_text.key("echo") == "echo"
    assert mixer_text.key("echo:lag=2") == "echo:lag=2"
