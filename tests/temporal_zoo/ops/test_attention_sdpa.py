"""How the `sdpa` body of `attention` calls torch's kernels, those for CUDA too, which need not be here."""

import pytest
import torch

from temporal_zoo.ops.attention import sdpa


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kernel", ["flash", "efficient"])
def test_the_cuda_kernels_take_our_arguments(kernel, padded):
    """On the meta device torch checks names, order, types and shapes of what its CUDA kernels are called with."""
    if kernel == "flash" and padded:
        pytest.skip("it is called without padding only")
    forward, backward = getattr(sdpa, f"_{kernel}_forward"), getattr(sdpa, f"_{kernel}_backward")
    q = torch.empty(3, 2, 37, 16, dtype=torch.bfloat16, device="meta")
    lengths = torch.empty(3, dtype=torch.int64, device="meta") if padded else None
    out, lse = forward(q, q, q, lengths)
    assert out.shape == q.shape
    assert lse.shape == (3, 2, 37)
    assert [x.shape for x in backward(q, q, q, q, out, lse, lengths)] == [q.shape] * 3


def test_the_wide_mask_is_aligned_and_small():
    q = torch.zeros(3, 2, 37, 16)
    mask = sdpa._wide_mask(q, torch.tensor([37, 1, 20]))
    assert mask.shape == (3, 2, 37, 37)
    assert mask.stride() == (48, 0, 0, 1)
    assert mask.isinf().sum(-1)[:, 1, 5].tolist() == [0, 36, 17]
