"""Tests of `mesa` only: its equation, its parameters, and what it stores."""

import pytest
import torch

from temporal_zoo import build, use_backend
from temporal_zoo.mixers._heads import apply_rotary


def expected(mixer, x):
    """The layer by its equation, for one row: (frames, dim), with one dense solution per head."""
    heads, features = mixer.config.heads, mixer.config.features
    q, k, v = (x @ mixer.heads.qkv.weight.T).unflatten(-1, (3, heads, features)).unbind(1)
    if mixer.config.rotary:
        q, k = (y[0] for y in apply_rotary(q[None], k[None]))
    beta = torch.sigmoid(x @ mixer.strength.weight.T + mixer.strength.bias)
    outs = []
    for head in range(heads):
        queries, keys = (y[:, head] / (y[:, head].square().sum(-1, keepdim=True) + 1e-6).sqrt() for y in (q, k))
        ridge = 0.25 + torch.log1p(mixer.ridge[head].exp())
        sums = [sum(beta[j, head] * torch.outer(y[j], keys[j]) for j in range(len(x))) for y in (v[:, head], keys)]
        outs.append((sums[0] @ torch.linalg.inv(sums[1] + ridge.diag()) @ queries.T).T)
    return torch.cat(outs, -1) @ mixer.heads.out.weight.T


@pytest.mark.parametrize("frames", [1, 4, 19])
@pytest.mark.parametrize("options", ["heads=2:features=7", "heads=3:features=5:rotary=no"])
def test_values_and_gradients_are_those_of_the_equation(options, frames):
    mixer = build(f"mesa:{options}", 12).double()
    torch.nn.init.normal_(mixer.ridge)
    x = torch.randn(2, frames, 12, dtype=torch.float64, requires_grad=True)
    results = [mixer(x), torch.stack([expected(mixer, row) for row in x])]
    leaves = [x, *mixer.parameters()]
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(y.sin().sum(), leaves) for y in results), rtol=1e-9, atol=1e-11)


def test_parameters():
    mixer = build("mesa", 64)
    # Projections of `attn`, a weight of each frame per head, and a ridge per key feature.
    assert sum(p.numel() for p in mixer.parameters()) == 131_072 + 8 * (64 + 1) + 8 * 64
    assert mixer.no_decay == ("ridge",)
    torch.testing.assert_close(0.25 + torch.nn.functional.softplus(mixer.ridge), torch.ones(8, 64))


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_the_ridge_is_at_least_a_quarter(value):
    mixer = build("mesa:heads=2:features=8", 12)
    torch.nn.init.constant_(mixer.ridge, value)
    x = torch.randn(2, 9, 12, requires_grad=True)
    y = mixer(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_without_rotary_time_reversal_reverses_the_output():
    mixer = build("mesa:heads=2:features=8:rotary=no", 12).double()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(mixer(x.flip(1)).flip(1), mixer(x), rtol=1e-10, atol=1e-12)
    assert mixer.order_blind
    assert not build("mesa", 12).order_blind


def test_a_later_start_changes_nothing_while_the_ridge_is_one_number():
    mixer = build("mesa:heads=2:features=8", 12).double()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    # Frames of zeros have keys of zeros, which add nothing to the fit.
    later = torch.cat([torch.zeros(2, 5, 12), x], dim=1)
    torch.testing.assert_close(mixer(later)[:, 5:], mixer(x), rtol=1e-10, atol=1e-12)
    torch.nn.init.normal_(mixer.ridge)
    assert not torch.allclose(mixer(later)[:, 5:], mixer(x), rtol=1e-4)


def test_stored_numbers_are_linear_in_frames():
    def stored(frames):
        mixer = build("mesa:heads=2:features=16:rotary=no", 12)
        parameters = {p.untyped_storage().data_ptr() for p in mixer.parameters()}
        kept = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.update({x.data_ptr(): x}) or x, lambda x: x)
        with hooks:
            mixer(torch.randn(8, frames, 12))
        unique = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept.values()}
        return sum(size for pointer, size in unique.items() if pointer not in parameters) // 4

    ridge = 2 * 16
    for frames in (8, 64):
        # x, q, k, v, the output of the op, and beta.
        assert stored(frames) == 8 * frames * (12 + 4 * 32 + 2) + ridge


def test_bfloat16_autocast_stays_near_float32():
    mixer = build("mesa:heads=2:features=16", 12)
    x = torch.randn(3, 20, 12)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, mixer(x), rtol=3e-2, atol=3e-2)


def test_backends_give_the_same_layer():
    mixer = build("mesa:heads=2:features=8", 12).double()
    x, lengths = torch.randn(3, 9, 12, dtype=torch.float64), torch.tensor([9, 1, 4])
    with use_backend(ridge_attention="reference"):
        wanted = mixer(x, lengths)
    with use_backend(ridge_attention="torch"):
        torch.testing.assert_close(mixer(x, lengths), wanted, rtol=1e-10, atol=1e-12)
