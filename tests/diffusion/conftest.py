"""Fixtures: a small training run with all parts, small videos, and a fast extractor."""

import numpy as np
import pytest
import torch

from diffusion.config import ModelConfig, OptimizerConfig, ProcessConfig, TrainConfig
from diffusion.data import DataConfig


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """A folder for the rendered mazes of all tests."""
    return tmp_path_factory.mktemp("mazes")


@pytest.fixture
def small(rendered):
    """`small("steps=2", "model.mixer=flash")`: a run of four steps on 3 frames of 8x8, with changes."""
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


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ZOO_I3D_WEIGHTS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def videos(tmp_path):
    """`videos("name", count=4)`: a folder of smoothly drifting random pictures, uint8, 12 frames of 8 x 8."""

    def make(name, *, count=6, frames=12, size=8, seed=0):
        folder = tmp_path / name
        folder.mkdir()
        dice = np.random.default_rng(seed)
        for number in range(count):
            picture = dice.integers(0, 256, (size, size, 3), dtype=np.uint8)
            drift = np.stack([np.roll(picture, frame * (1 + number % 2), axis=1) for frame in range(frames)])
            np.save(folder / f"{number:02d}.npy", drift)
        return folder

    return make


class Means:
    """An extractor for tests: mean and spread of the colours of every clip; counts the clips that it has seen."""

    measures = ("Frechet of means", "kernel of means")
    least_frames = 4

    def __init__(self):
        self.identity = {"extractor": "means"}
        self.seen = 0

    def features(self, values, protocol):
        from diffusion.evaluation.pixels import quantised_values

        values = quantised_values(values, protocol)
        self.seen += len(values)
        motion = (values[:, 1:] - values[:, :-1]).abs().mean((1, 2, 3, 4))[:, None]
        return torch.cat([values.mean((1, 3, 4)), values.std((1, 3, 4)), motion], 1)


@pytest.fixture
def means():
    return Means()
