"""How the backends `sdpa` and `cudnn` of `attention` call torch's kernels, also those for GPUs."""

import pytest
import torch

from temporal_zoo.ops import Planned, planning
from temporal_zoo.ops.attention import attention, cudnn, sdpa


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kernel", ["flash", "efficient"])
def test_the_cuda_kernels_take_our_arguments(kernel, padded):
    """On the meta device torch checks names, order, types and shapes of the arguments of its CUDA kernels."""
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


@pytest.mark.parametrize("frames", [2, 37])
def test_the_cudnn_kernel_takes_our_arguments(frames):
    q = torch.empty(3, frames, 2, 16, dtype=torch.bfloat16, device="meta")
    out, lse = cudnn.forward(q, q, q, None, None)
    assert out.shape == q.shape
    assert lse.shape == (3, 2, frames)
    *grads, dbias = cudnn.backward(q, q, q, q, None, None, out, lse, False)
    assert [x.shape for x in grads] == [q.shape] * 3
    assert dbias is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"dtype": torch.float32}, "bfloat16 and float16"),
        ({"features": 12}, "multiples of 8 features"),
        ({"features": 136}, "up to 128"),
        ({"frames": 1}, "at least two frames"),
        ({"lengths": True}, "no padded rows"),
        ({"capability": (7, 5)}, "compute capability 8.0"),
    ],
)
def test_the_cudnn_backend_refuses_other_inputs(change, reason):
    case = {"dtype": torch.bfloat16, "features": 64, "frames": 16, "lengths": False, "capability": (8, 0)} | change
    q = torch.empty(2, case["frames"], 2, case["features"], dtype=case["dtype"], device="meta")
    lengths = torch.ones(2, dtype=torch.int64, device="meta") if case["lengths"] else None
    with planning(Planned("cuda", case["capability"])):
        reasons = attention.reasons("cudnn", q, q, q, lengths=lengths)
    assert (not reasons) if reason is None else reason in " ".join(reasons)


@pytest.mark.parametrize(
    ("dtype", "capability", "name"),
    [
        (torch.float32, (8, 0), "efficient"),
        (torch.bfloat16, (8, 0), "flash"),
        (torch.float16, (7, 5), "efficient"),
    ],
)
def test_a_plan_names_the_kernel_of_sdpa(dtype, capability, name):
    q = torch.empty(2, 16, 2, 64, dtype=dtype, device="meta")
    with planning(Planned("cuda", capability)):
        assert sdpa.kernel(q, None) == name
