"""`zoo reproduce`: the paper's numbers, the fit, the page; the test of the whole command is `slow`."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from bench.paper import control, facts, reproduce
from bench.paper.page import _advantage, page, plot
from bench.plan.devices import GIB
from temporal_zoo.cli.main import zoo

FUSED = next(column for column in control.COLUMNS if column.name == "attention, fused")


def row(entry, counted, mixer="attn"):
    return reproduce.CountedMemory(entry, mixer, stored=counted // 2, reserved=counted, first=0)


def made_up(constant_gib=2.0, stray=1.0):
    """Rows that are a constant below the paper's numbers; `stray` multiplies the first row."""
    rows = [row(entry, int(entry.memory_gb * GIB - 8 * constant_gib * GIB)) for entry in facts.MEMORY]
    rows[0] = row(facts.MEMORY[0], int(rows[0].counted * stray))
    sizes = tuple(
        reproduce.CountedSize(size, "attn", model.parameters - 16, 16, model.parameters)
        for size, model in facts.MODELS.items()
    )
    return reproduce.Reproduction(sizes, tuple(rows), reproduce.fitted(rows))


def test_the_tables_of_the_paper_name_its_models():
    pairs = [pair for pairs in facts.SECONDS.values() for pair in pairs]
    named = {entry.size for entry in facts.MEMORY} | {size for pair in pairs for size, _ in pair}
    assert named == set(facts.MODELS)
    assert len(facts.MEMORY) == 19
    assert len(facts.FITTED) == 8
    widths = [[facts.MODELS[size].width for size, _ in pair] for pair in pairs]
    assert [width for width in widths if width[0] != width[1]] == [[72, 112]]


def test_no_other_file_repeats_a_number_of_the_paper():
    root = Path(facts.__file__).parents[2]
    sizes = {f"{model.parameters:_}" for model in facts.MODELS.values()} | {
        f"{parameters:_}" for parameters in facts.VARIANTS.values()
    }
    for folder in ("temporal_zoo", "diffusion", "bench", "docs", "tests"):
        for path in (root / folder).rglob("*.py"):
            if path != Path(facts.__file__):
                text = path.read_text(encoding="utf-8")
                assert not [number for number in sizes if number in text], path


def test_the_constant_is_fitted_only_to_its_rows():
    assert made_up().constant == pytest.approx(2 * GIB, rel=1e-6)
    assert made_up(stray=3).constant == pytest.approx(2 * GIB, rel=1e-6)
    assert made_up().within == 19
    assert made_up(stray=3).within == 18


def test_sizes_agree_to_the_unit_or_not():
    assert all(row.agrees for row in made_up().sizes)
    total = facts.MODELS["56.3M"].parameters
    assert reproduce.CountedSize("56.3M", "attn", total - 16, 16, total).agrees
    assert not reproduce.CountedSize("56.3M", "attn", total - 15, 16, total).agrees
    assert not reproduce.CountedSize("57.5M", "attn", total - 16, 16, total).agrees


@pytest.mark.parametrize("size", ["14.1M", "56.9M"])
def test_count_one_size_and_one_entry(size):
    assert reproduce._size(size, facts.MODELS[size]).agrees
    entry = next(entry for entry in facts.MEMORY if entry.size == size)
    found = reproduce._memory(entry)
    assert 0 < found.stored < found.reserved
    assert found.first == pytest.approx(12 * facts.MODELS[size].parameters, rel=1e-4)
    assert abs(found.error(2.4 * GIB)) < 0.1


def test_every_entry_is_on_the_page_with_its_error(tmp_path):
    text = page(made_up(stray=3), [])
    assert all(f"| {entry.size}* |" in text or f"| {entry.size} |" in text for entry in facts.MEMORY)
    assert "18 of 19 entries" in text
    assert text.count("**+") == 1
    assert "Not yet measured" in text
    assert all(contradiction in text for contradiction in facts.CONTRADICTIONS)
    plot(made_up(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def measured(column, frames, sample_ms):
    found = {"outcome": "ok", "train_ms": 9.0, "sample_ms": sample_ms, "peak_bytes": 3 * GIB}
    return {"column": column.name, "setup": {"frames": frames}, "gpu": "A100", **found}


def test_a_record_of_a_gpu_fills_the_page():
    rows = [measured(control.PUBLISHED, 64, 30.0), measured(control.PROPOSED, 64, 20.0)]
    text = page(made_up(), rows)
    assert "1.50 (A100)" in text
    assert "| attention with bias, weights held | float32 | 64 | 9 | 30 | 3.00 |" in text


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


@pytest.mark.slow
def test_the_whole_reproduction(tmp_path):
    result = CliRunner().invoke(zoo, ["reproduce", "2403.07711", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "reproduce.json").read_text())
    assert all(size["agrees"] for size in found["sizes"])
    assert found["within_10_percent"] >= 15
    assert len(found["memory"]) == 19
