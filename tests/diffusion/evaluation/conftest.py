"""Fixtures of evaluation tests: weights and values of the official network."""

import os
from pathlib import Path

import numpy as np
import pytest


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
