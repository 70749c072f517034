"""What tests of the evaluation share: weights from outside, small videos, and an extractor that takes no time."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def i3d_weights():
    """The arrays of I3D's weights; tests that need them are skipped without."""
    from diffusion.evaluation import weights

    if not os.environ.get(weights.VARIABLE):
        pytest.skip(f"set {weights.VARIABLE} to the file that `zoo weights i3d --from` writes")
    return weights.load(weights.find())


@pytest.fixture(scope="session")
def i3d(i3d_weights):
    from diffusion.evaluation.i3d import I3D

    return I3D(i3d_weights)


@pytest.fixture(scope="session")
def reference():
    """Logits of the official network for one clip in four variants, and the published curve of constant videos."""
    with np.load(Path(__file__).with_name("i3d_reference.npz")) as held:
        return dict(held)


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
        from diffusion.evaluation.pixels import levelled

        values = levelled(values, protocol)
        self.seen += len(values)
        motion = (values[:, 1:] - values[:, :-1]).abs().mean((1, 2, 3, 4))[:, None]
        return torch.cat([values.mean((1, 3, 4)), values.std((1, 3, 4)), motion], 1)


@pytest.fixture
def means():
    return Means()
