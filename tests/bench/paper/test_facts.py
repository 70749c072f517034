"""The paper's numbers."""

from pathlib import Path

from bench.paper import facts


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
