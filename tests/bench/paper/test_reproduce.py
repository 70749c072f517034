"""The paper's sizes and memory: the data, the fit, the page; the whole reproduction is `slow`."""

import json

import pytest
import torch
from click.testing import CliRunner

from bench.paper import control, reproduce
from bench.paper import facts as paper
from bench.paper import page as reproduce_page
from bench.plan.devices import GIB
from diffusion.presets import PAPER
from temporal_zoo.cli.main import zoo

FUSED = next(column for column in control.COLUMNS if column.name == "attention, fused")


def row(entry, counted, mixer="attn"):
    return reproduce.Memory(entry, mixer, stored=counted // 2, reserved=counted, first=0)


def made_up(constant_gib=2.0, stray=1.0):
    """Rows that the paper's numbers exceed by a constant, but for `stray` in the first."""
    rows = [row(entry, int(entry.memory_gb * GIB - 8 * constant_gib * GIB)) for entry in paper.MEMORY]
    rows[0] = row(paper.MEMORY[0], int(rows[0].counted * stray))
    sizes = tuple(reproduce.Size(size, "attn", count - 16, 16, count) for size, count in paper.SIZES.items())
    return reproduce.Reproduction(sizes, tuple(rows), reproduce.fitted(rows))


def test_the_data_name_models_that_are_presets():
    assert set(paper.SIZES) == set(PAPER)
    assert {entry.size for entry in paper.MEMORY} <= set(PAPER)
    assert len(paper.MEMORY) == 19
    assert len(paper.FITTED) == 8


def test_the_constant_is_fitted_to_its_rows_and_no_other():
    assert made_up().constant == pytest.approx(2 * GIB, rel=1e-6)
    assert made_up(stray=3).constant == pytest.approx(2 * GIB, rel=1e-6)
    assert made_up().within == 19
    assert made_up(stray=3).within == 18


def test_sizes_agree_to_the_unit_or_not():
    assert all(row.agrees for row in made_up().sizes)
    assert not reproduce.Size("56.3M", "attn", 56_279_812, 16, 56_279_827).agrees


@pytest.mark.parametrize("size", ["14.1M", "56.9M"])
def test_one_size_and_one_entry_counted_anew(size):
    assert reproduce._size(size, paper.SIZES[size]).agrees
    entry = next(entry for entry in paper.MEMORY if entry.size == size)
    found = reproduce._memory(entry)
    assert 0 < found.stored < found.reserved
    assert found.first == pytest.approx(12 * paper.SIZES[size], rel=1e-4)
    assert abs(found.error(2.4 * GIB)) < 0.1


def test_every_entry_is_on_the_page_with_its_error(tmp_path):
    page = reproduce_page.page(made_up(stray=3), [])
    assert all(f"| {entry.size}* |" in page or f"| {entry.size} |" in page for entry in paper.MEMORY)
    assert "18 of 19 entries" in page
    assert page.count("**+") == 1
    assert "Not yet measured" in page
    assert all(text in page for text in paper.CONTRADICTIONS)
    reproduce_page.plot(made_up(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def measured(column, frames, sample_ms):
    found = {"outcome": "ok", "train_ms": 9.0, "sample_ms": sample_ms, "peak_bytes": 3 * GIB}
    return {"column": column.name, "setup": {"frames": frames}, "gpu": "A100", **found}


def test_a_record_of_a_gpu_fills_the_page():
    rows = [measured(control.PUBLISHED, 64, 30.0), measured(control.PROPOSED, 64, 20.0)]
    page = reproduce_page.page(made_up(), rows)
    assert "1.50 (A100)" in page
    assert "| attention with bias, weights held | float32 | 64 | 9 | 30 | 3.00 |" in page


def plans(*peaks_gib):
    """Plans of the columns that the published advantage is made of, with made-up peaks."""
    names = [control.PUBLISHED.name, *(after.name for _, _, after in control.STEPS)]
    return [
        control.PlannedColumn(name, "float32", int(peak * GIB / 2), int(peak * GIB), 100, ())
        for name, peak in zip(names, peaks_gib, strict=True)
    ]


def test_the_published_advantage_is_the_sum_of_its_changes():
    saved = dict(control.advantage(plans(27, 18, 13, 12)))
    assert [value / GIB for value in saved.values()] == [9, 5, 1]
    table = "\n".join(reproduce_page._advantage(plans(27, 18, 13, 12)))
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


@pytest.mark.slow
def test_the_whole_reproduction(tmp_path):
    result = CliRunner().invoke(zoo, ["reproduce", "2403.07711", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "reproduce.json").read_text())
    assert all(size["agrees"] for size in found["sizes"])
    assert found["within_10_percent"] >= 15
    assert len(found["memory"]) == 19
