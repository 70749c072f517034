"""Tests of `linattn` only: the equation of the paper's code, its numbers of parameters, and the order of frames."""

import pytest
import torch

from temporal_zoo import build
from temporal_zoo.mixers._heads import apply_rotary


@pytest.mark.parametrize(("width", "heads", "count"), [(64, 8, 131_072), (512, 8, 1_048_576), (32, 4, 32_768)])
def test_number_of_parameters_is_that_of_the_papers_code(width, heads, count):
    mixer = build("linattn", width, heads=heads)
    assert sum(parameter.numel() for parameter in mixer.parameters()) == count == 256 * heads * width


def test_it_loads_the_weights_of_attn():
    build("linattn", 16).load_state_dict(build("attn", 16).state_dict())


def of_one_row(mixer, x):
    """The equation for one row without padding, with a loop over frames."""
    heads, features = mixer.config.heads, mixer.config.features
    q, k, v = mixer.heads.qkv(x).unflatten(-1, (3, heads, features)).unbind(1)
    if mixer.config.rotary:
        q, k = (each[0] for each in apply_rotary(q[None], k[None]))
    weights = k.exp() / k.exp().sum(0)
    state = sum(torch.einsum("hd,he->hde", weights[j], v[j]) for j in range(len(x)))
    read = [torch.einsum("hd,hde->he", q[i].softmax(-1) / features**0.5, state).flatten() for i in range(len(x))]
    return torch.stack(read) @ mixer.heads.out.weight.T


@pytest.mark.parametrize("spec", ["linattn", "linattn:rotary=no", "linattn:heads=3:features=5"])
def test_values_and_gradients_are_those_of_the_equation(spec):
    torch.manual_seed(0)
    mixer = build(spec, 6).double()
    lengths = torch.tensor([4, 1, 9])
    x = torch.randn(3, 9, 6, dtype=torch.float64, requires_grad=True)
    slope = torch.randn_like(x)
    leaves = [x, *mixer.parameters()]
    y = mixer(x, lengths)
    found = torch.autograd.grad((y * slope).sum(), leaves)
    rows = [of_one_row(mixer, x[row, :real]) for row, real in enumerate(lengths.tolist())]
    for row, expected in enumerate(rows):
        torch.testing.assert_close(y[row, : len(expected)], expected)
    total = sum((expected * slope[row, : len(expected)]).sum() for row, expected in enumerate(rows))
    torch.testing.assert_close(found, torch.autograd.grad(total, leaves))


def test_without_rotary_it_commutes_with_any_order_of_frames():
    torch.manual_seed(0)
    mixer, x = build("linattn:rotary=no", 8), torch.randn(2, 11, 8)
    order = torch.randperm(11)
    torch.testing.assert_close(mixer(x[:, order]), mixer(x)[:, order])


def test_large_keys_do_not_overflow():
    torch.manual_seed(0)
    mixer, lengths = build("linattn", 8), torch.tensor([9, 2])
    x = (1e4 * torch.randn(2, 9, 8)).requires_grad_()
    y = mixer(x, lengths)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
