"""Fixtures: the smallest recipe, and a grid of three cells."""

import pytest
import torch

from diffusion.ablations.ablation import Ablation, Scale, crossed
from diffusion.ablations.grid import build_grid
from diffusion.ablations.recipe import Drawing, Recipe

MIXERS = {name: f"train.model.mixer={name}" for name in ("mamba:state=4", "s4d:state=4")}


@pytest.fixture(autouse=True)
def _same_threads():
    """Jobs set the number of threads of their process, which some tests share with them."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def base(small):
    """Four steps on 4 frames of 8x8, and two sampled clips."""
    train = small("model.mixer=identity", "model.slots=mid", "data.frames=4", "save_every=1", "optimizer.warmup=0")
    return Recipe(train=train, drawing=Drawing(count=2, steps=2))


@pytest.fixture
def mixers():
    """Mixer -> its assignment to the recipe."""
    return MIXERS


@pytest.fixture
def grid(base, tmp_path):
    """`grid()`: two cells and a reference, with one seed each."""

    def make(folder="out", seeds=1, **scale):
        cells = crossed({"mixer": MIXERS}) + crossed({"mixer": {"identity": ""}}, reference=True)
        ablation = Ablation("micro", "Does it run?", (), (), "toy", Scale(base=base, cells=cells, **scale))
        return build_grid(ablation, tmp_path / folder, seeds=seeds, changes=(), weights=None, device="cpu")

    return make
