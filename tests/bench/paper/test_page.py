"""The page and the plot of `zoo reproduce`."""

import json
from pathlib import Path

from bench.paper import control, facts, reproduce
from bench.paper.page import page, plot
from bench.plan.devices import GIB


def test_every_entry_is_on_the_page_with_its_error(tmp_path, made_up):
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


def test_a_record_of_a_gpu_fills_the_page(made_up):
    rows = [measured(control.PUBLISHED, 64, 30.0), measured(control.PROPOSED, 64, 20.0)]
    text = page(made_up(), rows)
    assert "1.50 (A100)" in text
    assert "| attention with bias, weights held | float32 | 64 | 9 | 30 | 3.00 |" in text


def test_the_committed_page_is_the_page_of_the_committed_numbers():
    results = Path(__file__).parents[3] / "docs" / "results"
    numbers = json.loads((results / "reproduce.json").read_text())
    memory = [
        reproduce.CountedMemory(entry, row["mixer"], row["stored_bytes"], row["counted_bytes"], first=0)
        for entry, row in zip(facts.MEMORY, numbers["memory"], strict=True)
    ]
    for size in numbers["sizes"]:
        assert size.pop("agrees")
    sizes = [reproduce.CountedSize(**size) for size in numbers["sizes"]]
    columns = [control.PlannedColumn(**column) for column in numbers["control"]]
    result = reproduce.Reproduction(tuple(sizes), tuple(memory), reproduce.fitted(memory), tuple(columns))
    assert page(result, []) == (results / "reproduce.md").read_text()
