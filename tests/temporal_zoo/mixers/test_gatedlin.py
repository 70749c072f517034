"""Tests of `gatedlin` only: the equation, the parameters of the published layer, and what the rotary embedding does."""

import pytest
import torch

from temporal_zoo import build

SPECS = ("gatedlin", "gatedlin:rotary=no", "gatedlin:flavour=sana2", "gatedlin:heads=3:features=5:numerator=signed")


@pytest.mark.parametrize(("heads", "features", "count"), [(2, 32, 20_898), (8, 8, 21_264)])
def test_number_of_parameters_is_that_of_the_published_layer(heads, features, count):
    mixer, width = build("gatedlin", 64, heads=heads, features=features), 64
    maps = 3 * width * width + width * width + width + width * heads + heads + width * width + width
    norms = 2 * width + features
    assert sum(parameter.numel() for parameter in mixer.parameters()) == count == maps + norms


def test_number_of_parameters_of_the_default():
    assert sum(parameter.numel() for parameter in build("gatedlin", 64).parameters()) == 166_024


def normed(x, gain):
    return gain * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def rotated(x, time):
    """The first 32 features as complex numbers, each turned by an angle in proportion to the time."""
    pairs = min(32, x.shape[-1]) // 2
    turns = torch.exp(1j * time * 10_000.0 ** -(torch.arange(pairs, dtype=torch.float64) / pairs))
    head = torch.view_as_complex(x[..., : 2 * pairs].unflatten(-1, (-1, 2)).contiguous())
    return torch.cat((torch.view_as_real(head * turns).flatten(-2), x[..., 2 * pairs :]), -1)


def of_one_row(mixer, x, first=0):
    """The equation for one row without padding, with a loop over frames; `first` is the time of its first frame."""
    config = mixer.config
    by_head = (config.heads, config.features)
    q, k, v = (x @ weight.T for weight in mixer.qkv.weight.chunk(3))
    q, k = normed(q, mixer.q_norm).unflatten(-1, by_head), normed(k, mixer.k_norm).unflatten(-1, by_head)
    v, beta, gate = v.unflatten(-1, by_head), mixer.beta_proj(x).sigmoid(), mixer.gate(x).sigmoid()
    state, sums = 0, 0
    for j in range(len(x)):
        key = k[j].relu() if config.numerator == "relu" else k[j]
        key = rotated(key, first + j) if config.rotary else key
        state = state + torch.einsum("h,he,hd->hed", beta[j], v[j], key)
        sums = sums + k[j].relu()
    ys = []
    for i in range(len(x)):
        query = q[i].relu() if config.numerator == "relu" else q[i]
        query = rotated(query, first + i) if config.rotary else query
        o = torch.einsum("hed,hd->he", state, query) / ((sums * q[i].relu()).sum(-1, keepdim=True) + 1e-8)
        ys.append(mixer.out_proj(normed(o, mixer.out_norm).flatten() * gate[i]))
    return torch.stack(ys)


def awake(spec, width=6):
    torch.manual_seed(0)
    mixer = build(spec, width).double()
    for parameter in mixer.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return mixer


@pytest.mark.parametrize("spec", SPECS)
def test_values_and_gradients_are_those_of_the_equation(spec):
    mixer, lengths = awake(spec), torch.tensor([4, 1, 9])
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


@pytest.mark.parametrize("spec", SPECS)
def test_float32_is_near_float64(spec):
    mixer = awake(spec, 32)
    x = torch.randn(2, 33, 32, dtype=torch.float64)
    exact = mixer(x)
    torch.testing.assert_close(mixer.float()(x.float()).double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_only_differences_of_times_matter(spec):
    mixer, x = awake(spec), torch.randn(7, 6, dtype=torch.float64)
    torch.testing.assert_close(of_one_row(mixer, x, first=5), mixer(x[None])[0])


def test_without_rotary_it_commutes_with_any_order_of_frames():
    mixer, x = awake("gatedlin:rotary=no"), torch.randn(2, 11, 6, dtype=torch.float64)
    order = torch.randperm(11)
    torch.testing.assert_close(mixer(x[:, order]), mixer(x)[:, order])


@pytest.mark.parametrize("numerator", ["relu", "signed"])
def test_frames_without_features_above_zero_are_finite_and_right(numerator):
    """With two features a quarter of the queries has none above zero, and the denominator is eps."""
    mixer = awake(f"gatedlin:features=2:numerator={numerator}")
    x = torch.randn(3, 9, 6, dtype=torch.float64, requires_grad=True)
    q = mixer.qkv(x).chunk(3, -1)[0].unflatten(-1, (8, 2))
    assert (q <= 0).all(-1).any()
    exact = mixer(x)
    wanted = torch.autograd.grad(exact.square().sum(), x)[0]
    rough = mixer.float()(x.float())
    torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=1e-4)
    found = torch.autograd.grad(rough.square().sum(), x)[0]
    assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()
