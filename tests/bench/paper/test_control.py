"""The control experiment: its plans and the split of the published advantage."""

import pytest
import torch

from bench.paper import control
from bench.paper.page import _advantage
from bench.plan.devices import GIB

FUSED = next(column for column in control.COLUMNS if column.name == "attention, fused")


def plans(*peaks_gib):
    """Plans with the given peaks for the columns that split the published advantage."""
    names = [control.PUBLISHED.name, *(after.name for _, _, after in control.STEPS)]
    return [
        control.PlannedColumn(name, "float32", int(peak * GIB / 2), int(peak * GIB), 100, ())
        for name, peak in zip(names, peaks_gib, strict=True)
    ]


def test_the_published_advantage_is_the_sum_of_its_changes():
    saved = dict(control.advantage(plans(27, 18, 13, 12)))
    assert [value / GIB for value in saved.values()] == [9, 5, 1]
    table = "\n".join(_advantage(plans(27, 18, 13, 12)))
    assert "| fusing the attention | 27.0 | 18.0 | 9.0 |" in table
    assert "| all three | 27.0 | 12.0 | 15.0 |" in table
    # Each change starts where the one before it ends, so that the savings can be added.
    assert [after for _, _, after in control.STEPS[:-1]] == [before for _, before, _ in control.STEPS[1:]]


def test_neighbours_of_a_change_differ_in_one_thing():
    fusing, recomputing, _ = control.STEPS
    for _, before, after in (fusing, recomputing):
        assert ("relative_bias=yes" in before.mixer) == ("relative_bias=yes" in after.mixer)
    assert fusing[1].checkpointing == fusing[2].checkpointing
    assert recomputing[1].mixer == recomputing[2].mixer


def test_the_kernel_that_runs_is_named(monkeypatch):
    monkeypatch.setattr(control.Planner, "longest", lambda *_: 0)  # which plans many lengths
    kernels = {plan.dtype: plan.backends for plan in (control.planned(FUSED, dtype) for dtype in control.DTYPES)}
    assert kernels["float32"] == ("attention=sdpa (efficient kernel)",)
    assert kernels["bfloat16"] == ("attention=sdpa (flash kernel)",)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_measuring_needs_a_gpu(tmp_path):
    with pytest.raises(control.ControlError, match="CUDA"):
        control.run(tmp_path / "record.jsonl", lambda text: None)
    assert control.read_all(tmp_path / "none.jsonl") == []
