"""Tests of `flash` only: it computes `attn` without the stored weights."""

import pytest
import torch

from temporal_zoo import registry
from temporal_zoo.ops._dispatch import tracing

OPTIONS = (
    "heads=2:features=40",
    "heads=2:features=40:relative_bias=yes",
    "heads=3:features=8:rotary=no:relative_bias=yes",
    "heads=3:features=8:rotary=no",
)


def pair(options, dim=12):
    """`attn` and `flash` with the same parameters, loaded from one into the other."""
    attn, flash = (registry.build(f"{name}:{options}", dim).double() for name in ("attn", "flash"))
    flash.load_state_dict(attn.state_dict())
    attn.load_state_dict(flash.state_dict())
    return attn, flash


@pytest.mark.parametrize("lengths", [None, [13, 1, 7]])
@pytest.mark.parametrize("options", OPTIONS)
def test_values_and_gradients_are_those_of_attn(options, lengths):
    x = torch.randn(3, 13, 12, dtype=torch.float64)
    if lengths is not None:
        lengths = torch.tensor(lengths)
        x[torch.arange(13) >= lengths[:, None]] = float("nan")
    results = []
    for mixer in pair(options):
        leaf = x.clone().requires_grad_()
        y = mixer(leaf, lengths)
        results.append([y, *torch.autograd.grad(y.sin().sum(), [leaf, *mixer.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "backends"), [(OPTIONS[0], {"flash_attn", "xformers", "sdpa"}), (OPTIONS[1], {"blocked"})]
)
def test_it_runs_a_backend_that_stores_no_weights(options, backends):
    with tracing() as ran:
        registry.build(f"flash:{options}", 12)(torch.randn(2, 5, 12))
    assert ran["attention"] <= backends


def stored_bytes(spec, frames):
    """Bytes stored for the backward pass, without parameters."""
    mixer = registry.build(spec, 16)
    parameters = {p.untyped_storage().data_ptr() for p in mixer.parameters()}
    kept = {}

    def keep(x):
        if x.untyped_storage().data_ptr() not in parameters:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        y = mixer(torch.randn(8, frames, 16))
    assert y.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("rotary", ["yes", "no"])
def test_stores_x_q_k_v_out_and_a_number_per_query(rotary):
    for frames in (32, 64):
        extra = frames * 16 * 2 * 4 if rotary == "yes" else 0  # cosines and sines
        numbers = 8 * frames * (16 + 4 * 2 * 40 + 2)
        assert stored_bytes(f"flash:heads=2:features=40:rotary={rotary}", frames) == 4 * numbers + extra


def test_attn_stores_the_square_of_the_frames():
    assert stored_bytes("attn:heads=8:features=8", 128) > 3 * stored_bytes("attn:heads=8:features=8", 64)


@pytest.mark.parametrize("options", OPTIONS[:2])
@pytest.mark.parametrize("name", ["attn", "flash"])
def test_compiles_into_one_graph(name, options):
    mixer = registry.build(f"{name}:{options}", 12)
    x, lengths = torch.randn(3, 7, 12), torch.tensor([7, 2, 5])
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, lengths), mixer(x, lengths))


@pytest.mark.parametrize("options", OPTIONS[:2])
def test_bfloat16_autocast_stays_near_float32(options):
    mixer = registry.build(f"flash:{options}", 12)
    x = torch.randn(3, 7, 12)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, mixer(x), rtol=2e-2, atol=2e-2)
