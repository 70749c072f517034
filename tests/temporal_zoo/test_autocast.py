"""Autocast on the meta device casts what torch's dispatcher casts; that bytes are those of a CPU is tested in bench."""

import pytest
import torch
import torch.nn.functional as F

from temporal_zoo.ops import Planned, _autocast, autocast, planning

SHORT = torch.bfloat16


# Overloads that have kernels of autocast where the plain name has none.
OVERLOADS = ("", ".input", ".int", ".Scalar", ".Tensor_Scalar", ".dim_IntList")


def is_cast(function, key):
    """Whether torch's dispatcher has a kernel of autocast for a function of torch."""
    name = function.__name__.strip("_").replace("rmatmul", "matmul")
    known = [f"aten::{name}{ending}" for ending in OVERLOADS]
    registered = set(torch._C._dispatch_get_all_op_names())
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(op, key) for op in registered.intersection(known))


@pytest.mark.parametrize(
    "function",
    sorted(_autocast._SHORT | _autocast._FLOAT32 | _autocast._GIVE_FLOAT32, key=str),
    ids=lambda function: function.__name__,
)
def test_a_plan_casts_the_functions_that_torch_casts(function):
    assert is_cast(function, "AutocastCUDA")
    # The short ones are short on a CPU too; torch takes einsum there by the products that it is made of.
    assert is_cast(function, "AutocastCPU") or function not in _autocast._SHORT - {torch.einsum}


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    with planning(Planned(request.param)):
        yield request.param


def made(*shape, dtype=torch.float32):
    return torch.zeros(shape, device="meta", dtype=dtype)


def test_products_are_short_everywhere(device):
    x, w = made(2, 4, 4), torch.nn.Parameter(made(4, 4))
    with autocast("meta", SHORT):
        assert (x @ w).dtype == torch.einsum("rij,jk->rik", x, w).dtype == F.linear(x, w).dtype == SHORT
        assert F.conv2d(x[None], made(3, 2, 3, 3)).dtype == SHORT
        assert (x.double() @ w.double()).dtype == torch.float64
    assert (x @ w).dtype == torch.float32


def test_sums_and_norms_are_wide_on_cuda_alone(device):
    x = made(2, 4, 4, dtype=SHORT)
    wide = torch.float32 if device == "cuda" else SHORT
    with autocast("meta", SHORT):
        found = [
            x.softmax(-1),
            F.softmax(x, dim=-1),
            x.sum(0),
            x.exp(),
            F.group_norm(x, 2),
            F.layer_norm(x, (4,)),
            x**2,
        ]
        assert {y.dtype for y in found} == {wide}
        assert (x + x).dtype == F.silu(x).dtype == SHORT


def test_only_casts_of_parameters_are_stored(device):
    x, w = made(2, 4), torch.nn.Parameter(made(4, 4))
    with autocast("meta", SHORT):
        once, again = F.linear(x, w), F.linear(x, w)
    casts = [y.grad_fn.next_functions[-1][0].next_functions[0][0] for y in (once, again)]
    assert casts[0] is casts[1]


def test_it_can_be_switched_off_and_ends_with_its_block(device):
    x = made(2, 4, 4)
    with autocast("meta", SHORT):
        assert _autocast.working_dtype(x) == SHORT
        with _autocast.no_autocast(x):
            assert (x @ x).dtype == _autocast.working_dtype(x) == torch.float32
        assert (x @ x).dtype == SHORT
    assert _autocast.working_dtype(x) == torch.float32


def test_float32_is_no_autocast_and_other_devices_have_torchs_own():
    x = torch.zeros(4, 4)
    with autocast("cpu", torch.float32):
        assert (x @ x).dtype == torch.float32
    with autocast("cpu", SHORT):
        assert (x @ x).dtype == _autocast.working_dtype(x) == SHORT
