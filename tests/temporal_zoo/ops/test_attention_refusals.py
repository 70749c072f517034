"""What `attention` and its backends refuse, and their messages."""

import pytest
import torch

from temporal_zoo.ops._dispatch import BackendError
from temporal_zoo.ops.attention import attention, flash_attn, xformers


def test_a_pinned_backend_that_cannot_run_says_why():
    q = k = v = torch.randn(2, 3, 2, 8)
    bias, lengths = torch.randn(2, 3, 3), torch.tensor([3, 1])
    with pytest.raises(BackendError, match="it has no gradient for a bias") as caught:
        attention(q, k, v, bias=bias, backend="sdpa")
    assert "blocked: can run" in str(caught.value)
    for backend in (flash_attn, xformers):
        reasons = " ".join(backend.refuses(q, k, v, bias=bias, lengths=lengths))
        assert "on cuda, not on cpu" in reasons
        assert "bias" in reasons
        assert "padding" in reasons


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 3, 4)}, "must be floats"),
        ({"q": torch.zeros(2, 3, 2, 8, dtype=torch.int64)}, "must be floats"),
        ({"k": torch.zeros(2, 4, 2, 8)}, "k is"),
        ({"v": torch.zeros(2, 3, 2, 8, dtype=torch.float64)}, "v is"),
        ({"bias": torch.zeros(3, 3)}, "bias is"),
        ({"lengths": torch.ones(3, dtype=torch.int64)}, "lengths is"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    q = k = v = torch.randn(2, 3, 2, 8)
    arguments = {"q": q, "k": k, "v": v} | change
    with pytest.raises(ValueError, match=message):
        attention(arguments.pop("q"), arguments.pop("k"), arguments.pop("v"), **arguments)
