"""The configuration of a training run: the list of its fields, and assignments to them."""

import pytest

from diffusion.config import TrainConfig, fields
from temporal_zoo.config import ConfigError


def test_every_listed_field_takes_its_default_as_text_and_has_a_doc_line():
    paths = [path for path, *_ in fields()]
    assert len(paths) == len(set(paths))
    assert {"steps", "model.width", "data.frames", "optimizer.lr", "process.steps"} <= set(paths)
    for path, kind, default, doc in fields():
        assert kind
        assert doc
        assert TrainConfig().override([f"{path}={default}"]) == TrainConfig()


@pytest.mark.parametrize(
    ("assignment", "nearest"),
    [("width=8", "model.width"), ("widht=8", "model.width"), ("ema=0", "optimizer.ema"), ("modle.width=8", "model")],
)
def test_an_unknown_field_names_the_nearest_one(assignment, nearest):
    with pytest.raises(ConfigError, match=f'TrainConfig has no option .* \\(did you mean "{nearest}"'):
        TrainConfig().override([assignment])
