"""What `selective_scan` refuses, and its messages."""

import pytest
import torch

from temporal_zoo.ops.selective_scan import Direction, selective_scan


def tensors_of(**changes):
    wide, narrow = torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)
    return Direction(**{"u": wide, "dt": wide, "A": -torch.ones(4, 5), "B": narrow, "C": narrow} | changes)


@pytest.mark.parametrize(
    ("directions", "options", "message"),
    [
        ([], {}, "one or two directions, not 0"),
        ([tensors_of()] * 3, {}, "one or two directions, not 3"),
        ([tensors_of(u=torch.zeros(3, 4))], {}, r"u is \(3, 4\); expected \(rows, frames, channels\)"),
        ([tensors_of(u=torch.zeros(2, 0, 4))], {}, "at least one frame"),
        (
            [tensors_of(), tensors_of(C=torch.zeros(2, 4, 5))],
            {},
            r"direction 1: C is \(2, 4, 5\); expected \(2, 3, 5\)",
        ),
        ([tensors_of(A=-torch.ones(5, 4))], {}, r"direction 0: A is \(5, 4\); expected \(4, 4\)"),
        ([tensors_of(A=-torch.ones(4))], {}, r"A is \(4,\); expected \(channels, state\)"),
        ([tensors_of(skip=torch.zeros(3))], {}, r"skip is \(3,\); expected \(4,\)"),
        ([tensors_of(dt=torch.zeros(2, 3, 4, dtype=torch.int64))], {}, "dt is torch.int64; expected a real floating"),
        ([tensors_of(B=torch.zeros(2, 3, 5, device="meta"))], {}, "B is on meta; expected cpu"),
        ([tensors_of(), tensors_of(u=torch.zeros(2, 3, 4).half())], {}, "differ in the dtype of u"),
        ([tensors_of()], {"gate": torch.zeros(2, 3, 5)}, r"gate is \(2, 3, 5\)"),
        ([tensors_of()], {"lengths": torch.tensor([1.0, 2.0])}, r"expected \(2,\) int64"),
        ([tensors_of()], {"lengths": torch.tensor([1])}, r"lengths is \(1,\)"),
        ([tensors_of()], {"initial": [None, None]}, "initial has 2 entries for 1 directions"),
        ([tensors_of()], {"initial": [torch.zeros(2, 5, 4)]}, r"initial is \(2, 5, 4\); expected \(2, 4, 5\)"),
    ],
)
def test_wrong_arguments_are_named(directions, options, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(directions, **options)
