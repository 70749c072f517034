"""The configuration of a resumed run: which fields may differ, and how the message lists the others."""

from pathlib import Path

import pytest

from diffusion.training.resume import differences, listed, require_same
from temporal_zoo.config import ConfigError


def test_differences_are_listed_by_their_dotted_names():
    ours = {"model": {"width": 64, "mixer": "flash", "slots": []}, "batch": 8, "new": 1}
    theirs = {"model": {"width": 32, "mixer": "flash", "slots": []}, "batch": 8, "old": None}
    assert differences(ours, theirs) == {"model.width": (64, 32), "new": (1, None)}
    assert listed({"model.width": (64, 32)}) == "  model.width: 32 in the checkpoint, 64 asked for"


def test_a_run_is_resumed_under_the_same_configuration_except_for_free_fields():
    require_same({"steps": 2, "data": {"cache": "a"}}, {"steps": 1, "data": {"cache": "b"}}, Path("run"))
    with pytest.raises(
        ConfigError, match=r"run in there was .*\n  model.width: 32 in .*\n.* another folder with --out"
    ):
        require_same({"model": {"width": 64}, "steps": 2}, {"model": {"width": 32}, "steps": 1}, Path("there"))
