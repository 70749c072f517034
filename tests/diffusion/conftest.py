"""The smallest training run that still has every part."""

import pytest

from diffusion.config import ModelConfig, OptimizerConfig, ProcessConfig, TrainConfig
from diffusion.data.config import DataConfig


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Mazes are rendered once for all tests."""
    return tmp_path_factory.mktemp("mazes")


@pytest.fixture
def small(rendered):
    """`small("steps=2", "model.mixer=flash")`: a run of four steps on 3 frames of 8x8, and what is asked besides."""
    config = TrainConfig(
        model=ModelConfig(
            mixer="bimamba:state=4", slots=("mid", "up1"), width=8, multipliers=(1, 2), blocks=1, groups=2, heads=1,
            time_width=2, stem=3, size=8,
        ),
        process=ProcessConfig(steps=8, prediction="v"),
        data=DataConfig(frames=3, size=8, videos=3, cache=str(rendered)),
        optimizer=OptimizerConfig(lr=1e-3, clip=1.0, ema=0.9, weight_decay=0.01, warmup=2, decay=0.5),
        steps=4, batch=2, save_every=2, sample_every=100, test_every=2, test_clips=3,
    )  # fmt: skip

    def make(*assignments):
        return config.override(assignments)

    return make
