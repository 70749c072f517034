"""The ablations that ship, and how a new file adds one."""

import pytest

from diffusion.ablations import AblationError, catalogue
from diffusion.ablations.catalogue.bidirectional import recurrences


def test_every_file_is_an_ablation_with_a_toy_and_a_paper_scale():
    assert {"bidirectional", "mixers-by-frames", "equal-memory", "mlp-glu", "state-and-expansion"} < set(
        catalogue.names()
    )
    for name in catalogue.names():
        assert catalogue.summary(name).endswith(")") or "?" in catalogue.summary(name)
        for scale in ("toy", "paper"):
            ablation = catalogue.get(name, scale)
            axes = {axis for cell in ablation.scale.cells for axis in cell.values}
            assert {contrast.axis for contrast in ablation.contrasts} | set(ablation.apart) <= axes
            values = [tuple(sorted(cell.values.items())) for cell in ablation.scale.cells]
            assert len(set(values)) == len(values)
            for cell in ablation.scale.cells:
                ablation.scale.base.override(cell.changes)


def test_every_recurrence_is_compared_in_one_and_both_directions():
    from temporal_zoo import build

    assert {"s4d", "mamba"} <= set(recurrences())
    for one, both in recurrences().values():
        assert build(one, 16).causal
        assert not build(both, 16).causal


def test_an_unknown_name_or_scale_is_refused_with_the_nearest_one():
    with pytest.raises(AblationError, match='did you mean "bidirectional"'):
        catalogue.get("bidirectonal", "toy")
    with pytest.raises(AblationError, match="choose from toy, paper"):
        catalogue.get("bidirectional", "huge")
