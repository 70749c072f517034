"""Tests of `attn` only: the paper's layer, the rotary embedding, the position bias, the hint to use `flash`."""

import importlib
import logging

import pytest
import torch

import bench
from temporal_zoo import registry
from temporal_zoo.mixers import attn
from temporal_zoo.mixers._heads import RelativeBias, apply_rotary, buckets
from temporal_zoo.ops._dispatch import tracing


@pytest.mark.parametrize(("dim", "parameters"), [(64, 131_072), (512, 1_048_576)])
@pytest.mark.parametrize("name", ["attn", "flash"])
def test_parameter_counts_of_the_paper(name, dim, parameters):
    with torch.device("meta"):
        mixer, biased = registry.build(name, dim), registry.build(f"{name}:relative_bias=yes", dim)
    assert sum(p.numel() for p in mixer.parameters()) == parameters
    assert sum(p.numel() for p in biased.parameters()) == parameters + 32 * 8


def test_is_the_papers_layer():
    """The same layer in a second implementation, one row, one head and one query at a time."""
    mixer = registry.build("attn:heads=3:features=36:relative_bias=yes", 20).double()
    x = torch.randn(2, 9, 20, dtype=torch.float64)
    weight, table = mixer.heads.qkv.weight, mixer.own.table.weight
    angle = torch.arange(9.0).double()[:, None] * 10_000 ** (-torch.arange(16.0).double() / 16)
    turn = torch.polar(torch.ones_like(angle), angle)

    def rotate(z):
        pairs = torch.view_as_complex(z[:, :32].reshape(9, 16, 2).contiguous())
        return torch.cat((torch.view_as_real(pairs * turn).reshape(9, 32), z[:, 32:]), 1)

    def bucket(lag):
        distance = abs(lag)
        far = 8 + int(torch.tensor(distance / 8 + 1e-12).log() / torch.tensor(4.0).log() * 8) if distance >= 8 else 0
        return (16 if lag < 0 else 0) + (distance if distance < 8 else min(far, 15))

    rows = []
    for row in x:
        heads = []
        for head in range(3):
            q, k, v = (row @ weight[n * 108 + head * 36 : n * 108 + head * 36 + 36].T for n in range(3))
            bias = torch.stack([torch.stack([table[bucket(i - j), head] for j in range(9)]) for i in range(9)])
            heads.append(torch.softmax(rotate(q / 6) @ rotate(k).T + bias, -1) @ v)
        rows.append(torch.cat(heads, 1) @ mixer.heads.out.weight.T)
    torch.testing.assert_close(mixer(x), torch.stack(rows), rtol=1e-6, atol=1e-8)


def test_buckets_of_the_paper():
    ahead = torch.tensor([-1, -7, -8, -10, -12, -16, -20, -23, -27, -32, -500])  # key time minus query time
    assert buckets(-ahead).tolist() == [1, 7, 8, 9, 10, 12, 13, 14, 15, 15, 15]
    assert buckets(ahead).tolist() == [17, 23, 24, 25, 26, 28, 29, 30, 31, 31, 31]
    assert buckets(torch.tensor([0, 9, 11, 13, 15, 19, 22, 26])).tolist() == [0, 8, 9, 10, 11, 12, 13, 14]


def test_the_axes_of_the_bias_are_head_query_and_key():
    bias = RelativeBias(heads=3)
    table, values = bias.table.weight, bias(5)
    assert values.shape == (3, 5, 5)
    assert values[2, 4, 1] == table[3, 2]  # the query is three frames later than the key
    assert values[1, 0, 2] == table[16 + 2, 1]


def test_bias_table_is_drawn_from_a_normal_distribution():
    table = RelativeBias(heads=512).table.weight
    assert abs(table.mean()) < 0.03
    assert abs(table.std() - 1) < 0.03


def test_the_rotary_embedding_rotates_32_features_and_no_others():
    x = torch.randn(2, 40, 3, 64, dtype=torch.float64)
    (y,) = apply_rotary(x)
    torch.testing.assert_close(y[:, 0], x[:, 0])
    assert torch.equal(y[..., 32:], x[..., 32:])
    pairs = lambda z: torch.view_as_complex(z[..., :32].reshape(*z.shape[:-1], 16, 2).contiguous())
    angle = torch.arange(40.0).double()[:, None, None] * 10_000 ** (-torch.arange(0.0, 32, 2).double() / 32)
    torch.testing.assert_close(pairs(y) / pairs(x), torch.polar(torch.ones_like(angle), angle).expand(2, 40, 3, 16))


def test_with_the_rotary_embedding_products_depend_on_distance_only():
    q, k = apply_rotary(*(torch.randn(64, dtype=torch.float64).expand(1, 30, 1, 64) for _ in range(2)))
    products = torch.einsum("rikc,rjkc->ij", q, k)
    torch.testing.assert_close(products[1:, 1:], products[:-1, :-1])
    assert (products[0] - products[:, 0]).abs().max() > 0.1  # and on its sign


@pytest.mark.parametrize("features", [2, 5, 32])
def test_the_rotary_embedding_of_narrow_heads_depends_on_order(features):
    mixer = registry.build(f"attn:heads=2:features={features}", 6)
    x = torch.randn(2, 4, 6)
    assert (mixer(x).flip(1) - mixer(x.flip(1))).abs().max() > 1e-5


def test_the_rotary_embedding_is_precise_in_bfloat16():
    x = torch.randn(1, 3000, 1, 32)
    (exact,), (rounded,) = apply_rotary(x.bfloat16().double()), apply_rotary(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded.double() - exact).abs().max() < 0.02


def test_it_declares_whether_it_depends_on_order():
    blind = {spec: registry.build(f"attn:{spec}", 8).order_blind for spec in ("rotary=no", "rotary=yes")}
    assert blind == {"rotary=no": True, "rotary=yes": False}
    assert not registry.build("attn:rotary=no:relative_bias=yes", 8).order_blind


def test_mixers_share_the_bias_table():
    spec = "attn:heads=2:features=8:relative_bias=yes"
    mixer = registry.get("attn").mixer
    table = mixer.make_shared(mixer.Config(heads=2, relative_bias=True))
    first, second = (registry.build(spec, 8, shared=table) for _ in range(2))
    assert not any("table" in name for name in first.state_dict())
    (first(torch.randn(1, 4, 8)) + second(torch.randn(1, 4, 8))).sum().backward()
    assert table.table.weight.grad.abs().sum() > 0
    assert mixer.make_shared(mixer.Config()) is None


def test_it_runs_the_reference_which_stores_the_weights():
    with tracing() as ran:
        registry.build("attn", 8)(torch.randn(1, 3, 8))
    assert ran == {"attention": {"reference"}}


def test_logits_stay_in_float32_under_autocast():
    mixer = registry.build("attn", 8)
    seen = []
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x) or x, lambda x: x),
    ):
        mixer(torch.randn(2, 5, 8))
    weights = [x for x in seen if x.shape[-2:] == (5, 5)]
    assert weights
    assert all(x.dtype == torch.float32 for x in weights)


@pytest.fixture
def hints(caplog, monkeypatch):
    """The hints that `attn` logs where more than 1000 bytes of weights are large."""
    monkeypatch.setattr(attn, "LARGE", 1000)
    level = attn.log.level
    attn.log.setLevel(logging.NOTSET)  # `bench` raises it
    attn._hint_at_flash.cache_clear()
    yield lambda: [record.message for record in caplog.records if record.name == attn.log.name]
    attn._hint_at_flash.cache_clear()
    attn.log.setLevel(level)


def test_large_stored_weights_are_reported_once_with_the_name_of_flash(hints):
    small, large = registry.build("attn:heads=2", 8), registry.build("attn:heads=2", 8)
    small(torch.randn(1, 11, 8))  # 968 bytes
    assert hints() == []
    large(torch.randn(1, 12, 8))  # 1152 bytes
    large(torch.randn(1, 13, 8))
    assert len(hints()) == 1
    assert "flash is the same function" in hints()[0]


def test_plans_and_compiled_graphs_give_no_hint(hints):
    registry.build("attn:heads=2", 8, device="meta")(torch.empty(5, 100, 8, device="meta"))
    torch.compile(registry.build("attn:heads=2", 8), backend="eager", fullgraph=True)(torch.randn(5, 20, 8))
    assert hints() == []


def test_benchmarks_give_no_hint(hints):
    importlib.reload(bench)
    registry.build("attn:heads=2", 8)(torch.randn(5, 20, 8))
    assert hints() == []


@pytest.mark.parametrize("name", ["attn", "flash"])
def test_the_summary_says_that_attn_and_flash_are_the_same_function(name):
    assert "same function" in registry.get(name).summary
