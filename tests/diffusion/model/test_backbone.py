"""The space-time U-Net: information flow, padding, shared modules, stored bytes."""

import copy
import math
import threading

import pytest
import torch
import torch.nn.functional as F

from diffusion.config import ModelConfig
from diffusion.model.backbones import build_network
from diffusion.model.blocks import GroupNorm, LevelEmbedding
from temporal_zoo.config import ConfigError
from temporal_zoo.ops import tracing, use_backend

SMALL = ModelConfig(
    mixer="bimamba:state=4", size=8, width=8, multipliers=(1, 2), blocks=1, groups=2, heads=1, time_width=2, stem=3
)


def network(seed=0, **changes):
    return build_network(SMALL.replace(**changes), seed=seed)


def clip_batch(rng, clips=2, frames=5):
    return torch.randn(clips, frames, 3, 8, 8, generator=rng), torch.tensor([3, 200, 40][:clips])


def gradients(net):
    return {name: parameter.grad for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("changes", [
    {},
    {"multipliers": (1,), "slots": ("mid",)},
    {"multipliers": (1, 2, 3), "slots": ("stem", "up2"), "blocks": 2, "spatial": "bottom"},
    {"spatial": "none", "norm": "frame", "modulated": True, "zero_init": True, "channels": 1, "stem": 1},
    {"mixer": "attn:heads=2:features=8:relative_bias=yes@mid+identity"},
])  # fmt: skip
def test_shapes_and_a_gradient_for_every_parameter(rng, changes):
    net = network(**changes)
    x, levels = clip_batch(rng)
    x = x[:, :, : net.config.channels]
    y = net(x, levels)
    assert y.shape == x.shape
    (y * torch.randn(y.shape, generator=rng)).sum().backward()
    # With zero_init, gates that are zero make the first gradients of a branch zero, but no gradient is None.
    missing = {name for name, grad in gradients(net).items() if grad is None}
    assert not missing
    if not net.config.zero_init:
        assert all(grad.abs().sum() > 0 for grad in gradients(net).values())


def test_the_time_embedding_has_the_papers_sinusoids():
    sinusoid = LevelEmbedding(64, 8).sinusoid(torch.tensor([3]))
    assert sinusoid.shape == (1, 64)
    assert sinusoid[0, 0].item() == pytest.approx(0.1411, abs=5e-5)
    assert sinusoid[0, 32].item() == pytest.approx(-0.9900, abs=5e-5)
    assert sinusoid[0, 31].item() == pytest.approx(math.sin(3e-4), rel=1e-3)
    assert sinusoid[0, 1].item() == pytest.approx(math.sin(3 * 10_000 ** (-1 / 31)), rel=1e-5)


@pytest.mark.parametrize("real", [None, "padded"])
@pytest.mark.parametrize("frames", [1, 4])
def test_group_norm_equals_that_of_whole_clips(rng, frames, real):
    norm = GroupNorm(2, 6)
    with torch.no_grad():
        norm.weight.normal_(generator=rng)
        norm.bias.normal_(generator=rng)
    x = torch.randn(8, 6, 3, 5, generator=rng).contiguous(memory_format=torch.channels_last)
    mask = None if real is None else torch.tensor([1.0, 1, 1, 0, 1, 0, 0, 0])
    y = norm(x, frames, mask)
    for first in range(0, 8, frames):
        clip = slice(first, first + frames)
        kept = slice(first, first + (frames if mask is None else int(mask[clip].sum())))
        if kept.stop > kept.start:
            whole = F.group_norm(x[kept].movedim(0, 1)[None], 2, norm.weight, norm.bias)  # 1 c t h w
            torch.testing.assert_close(y[kept], whole[0].movedim(0, 1))
    if mask is not None:
        assert torch.equal(y[mask == 0], norm.bias[:, None, None].expand(4, -1, 3, 5))


@pytest.mark.parametrize("changes", [
    {},
    {"norm": "frame"},
    {"norm": "frame", "mixer": "attn:heads=2:features=8:relative_bias=yes", "modulated": True},
    {"mixer": "mamba:state=4@high+s4d:state=4@low", "checkpointing": "blocks", "multipliers": (1, 2, 2)},
])  # fmt: skip
def test_padding_is_invisible_in_values_and_gradients(rng, changes):
    net = network(**changes).double()
    lengths = torch.tensor([3, 1, 5])
    x, levels = clip_batch(rng, 3)
    x, weights = x.double(), torch.randn(x.shape, generator=rng).double()
    for row, length in enumerate(lengths):
        x[row, length:] = torch.nan
    x.requires_grad_()
    y = net(x, levels, lengths)
    (y * weights).sum().backward()
    together, inputs = gradients(net), x.grad
    alone = {name: torch.zeros_like(grad) for name, grad in together.items()}
    for row, length in enumerate(lengths.tolist()):
        part = slice(row, row + 1), slice(length)
        clip = x.detach()[part].clone().requires_grad_()
        net.zero_grad()
        one = net(clip, levels[row : row + 1])
        (one * weights[part]).sum().backward()
        torch.testing.assert_close(y[part], one)
        torch.testing.assert_close(inputs[part], clip.grad)
        assert not y[row, length:].any()
        assert not inputs[row, length:].any()
        alone = {name: total + gradients(net)[name] for name, total in alone.items()}
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)  # scans are float32 inside


def test_padding_stays_finite_in_a_deep_network_with_norms_per_frame(rng):
    net = network(norm="frame", multipliers=(1, 1, 1), blocks=12, spatial="none", slots=("mid",))
    x, levels = clip_batch(rng)
    net(x, levels, torch.tensor([1, 5])).square().mean().backward()
    assert all(grad.isfinite().all() for grad in gradients(net).values())


def test_noise_levels_per_frame(rng):
    net = network(norm="frame", mixer="identity")
    x, levels = clip_batch(rng)
    per_clip = net(x, levels)
    each = levels[:, None].repeat(1, 5)
    torch.testing.assert_close(net(x, each), per_clip)
    each[0, 2] += 30
    changed = (net(x, each) - per_clip).abs().amax((2, 3, 4)) > 1e-5
    assert changed.nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize("norm", ["clip", "frame"])
def test_only_mixers_and_norms_over_clips_mix_frames(rng, norm):
    x, levels = clip_batch(rng)
    other = x.clone()
    other[0, 2] += 1

    def reached(mixer):
        net = network(norm=norm, mixer=mixer)
        return {
            tuple(p) for p in ((net(other, levels) - net(x, levels)).abs().amax((2, 3, 4)) > 1e-6).nonzero().tolist()
        }

    assert reached("identity") == ({(0, 2)} if norm == "frame" else {(0, t) for t in range(5)})
    assert reached("mamba") == {(0, t) for t in range(2 if norm == "frame" else 0, 5)}
    assert reached("bimamba") == {(0, t) for t in range(5)}


@pytest.mark.parametrize("frames", [1, 2, 13])
def test_any_number_of_frames(rng, frames):
    x, levels = clip_batch(rng, frames=frames)
    assert network(mixer="bimamba:state=4@high+flash:heads=2:features=8@low")(x, levels).shape == x.shape


def test_a_hybrid_has_each_mixer_where_the_text_says():
    blocks = network(mixer="bimamba:state=4@high+flash:heads=2@low").temporal_blocks()
    found = {slot: type(block.mixer).__name__ for slot, block in blocks.items()}
    assert found == {
        "stem": "BiMamba", "down0": "BiMamba", "down1": "Flash", "mid": "Flash", "up0": "Flash", "up1": "BiMamba",
    }  # fmt: skip


def test_two_mixers_share_every_other_weight():
    first, second = (network(mixer=mixer).state_dict() for mixer in ("bimamba:state=4", "attn:relative_bias=yes"))
    theirs = [{n for n in names if ".mixer." not in n and not n.startswith("shared.")} for names in (first, second)]
    assert theirs[0] == theirs[1]
    assert len(theirs[0]) > 50
    assert all(torch.equal(first[name], second[name]) for name in theirs[0])
    stem = "stem_temporal.mixer.in_proj.weight"
    assert torch.equal(first[stem], network().state_dict()[stem])
    assert not torch.equal(first[stem], network(seed=1).state_dict()[stem])


@pytest.mark.parametrize(
    ("mixer", "name", "expected"),
    [
        ("bimamba:state=4", "stem.weight", 21.0470877),
        ("bimamba:state=4", "to_out.weight", 3.7139250),
        ("bimamba:state=4", "mid_temporal.mixer.in_proj.weight", 131.9269703),
        ("attn:heads=2:features=8:relative_bias=yes@mid+s4d:state=4", "stem.weight", 21.0470877),
        ("attn:heads=2:features=8:relative_bias=yes@mid+s4d:state=4", "shared.mid.table.weight", 44.8825856),
    ],
)
def test_initial_weights_under_a_seed_have_not_changed(mixer, name, expected):
    weight = network(mixer=mixer).state_dict()[name]
    assert weight.double().abs().sum().item() == pytest.approx(expected, rel=1e-6)


def test_a_slot_s_weights_do_not_depend_on_other_slots():
    alone, hybrid = network().state_dict(), network(mixer="bimamba:state=4@low+flash@high").state_dict()
    name = "mid_temporal.mixer.in_proj.weight"
    assert torch.equal(alone[name], hybrid[name])


def test_building_does_not_change_the_caller_s_random_state():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    network()
    assert torch.equal(torch.rand(3), expected)


def test_what_mixers_share_is_registered_once_and_survives_a_copy(rng):
    net = network(mixer="attn:heads=2:features=8:relative_bias=yes")
    tables = [name for name, p in net.named_parameters() if p.shape == (32, 2)]
    assert len(tables) == 1
    assert tables[0].startswith("shared.")
    twin = copy.deepcopy(net)
    for one in (net, twin):
        (table,) = one.shared.values()
        assert all(block.mixer.shared is table for block in one.temporal_blocks().values())
    two = network(mixer="attn:heads=2:relative_bias=yes@high+attn:heads=4:relative_bias=yes@low")
    assert len(two.shared) == 2
    x, levels = clip_batch(rng)
    before = net(x, levels)
    with torch.no_grad():
        next(iter(twin.shared.values())).table.weight.add_(1 + torch.arange(32)[:, None])
    assert torch.equal(net(x, levels), before)
    assert not torch.allclose(twin(x, levels), before)


def test_networks_with_one_state_dict_compute_the_same(rng):
    source, target = network(mixer="attn:relative_bias=yes"), network(mixer="attn:relative_bias=yes", seed=None)
    x, levels = clip_batch(rng)
    assert not torch.allclose(source(x, levels), target(x, levels))
    target.load_state_dict(source.state_dict())
    assert torch.equal(source(x, levels), target(x, levels))


def test_with_zero_init_mixers_do_not_change_the_first_output(rng):
    x, levels = clip_batch(rng)
    first, second = (network(mixer=mixer, zero_init=True) for mixer in ("identity", "bimamba"))
    assert torch.equal(first(x, levels), first.to_out.bias[:, None, None].expand(x.shape))
    for net in (first, second):
        torch.nn.init.ones_(net.to_out.weight)
    assert first(x, levels).std() > 0.1
    torch.testing.assert_close(first(x, levels), second(x, levels))


def test_weight_decay_skips_vectors_and_the_parameters_that_a_mixer_names():
    net = network()
    skipped = net.no_decay()
    names = dict(net.named_parameters())
    assert skipped < set(names)
    assert "mid_temporal.mixer.core.A_log" in skipped
    assert "mid_temporal.gain" in skipped
    assert "stem.weight" not in skipped
    assert all(parameter.ndim > 1 for name, parameter in names.items() if name not in skipped)


def stored_bytes(net, x, levels):
    held = {}

    def keep(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(x, levels)
    return sum(held.values())


def test_recomputation_reduces_stored_bytes_and_does_not_change_gradients(rng):
    x, levels = clip_batch(rng)
    lengths, found, stored = torch.tensor([4, 5]), {}, {}
    for checkpointing in ("none", "mixers", "blocks"):
        net = network(checkpointing=checkpointing, mixer="bimamba:state=4@high+attn:relative_bias=yes@low")
        net(x, levels, lengths).square().mean().backward()
        found[checkpointing] = gradients(net)
        stored[checkpointing] = stored_bytes(net, x, levels)
    assert stored["blocks"] < stored["mixers"] < stored["none"]
    for other in ("mixers", "blocks"):
        assert all(torch.equal(grad, found["none"][name]) for name, grad in found[other].items())


@pytest.mark.parametrize("checkpointing", ["mixers", "blocks"])
def test_recomputation_runs_the_backends_of_the_forward_pass(rng, checkpointing):
    """Backward runs in another thread, as on CUDA, and after the block that pins the backends."""
    net = network(checkpointing=checkpointing)
    x, levels = clip_batch(rng)
    with tracing() as auto:
        net(x, levels)
    assert "reference" not in auto["selective_scan"]
    with tracing() as ran:
        with use_backend(selective_scan="reference", causal_conv="reference"):
            loss = net(x, levels).square().mean()
        ran.clear()
        backward = threading.Thread(target=loss.backward)
        backward.start()
        backward.join()
    assert ran == {"selective_scan": {"reference"}, "causal_conv": {"reference"}}
    assert all(grad is not None for grad in gradients(net).values())


def test_bfloat16_autocast(rng):
    net = network()
    x, levels = clip_batch(rng)
    plain = net(x, levels)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, levels)
    half.float().square().mean().backward()
    assert F.mse_loss(half.float(), plain) < 1e-3 * plain.square().mean()
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in gradients(net).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": 4}, "stem is 4; it must be odd"),
        ({"width": 9, "groups": 3}, "width is 9; it must be even"),
        ({"width": 10, "groups": 4}, "width 10 is not a multiple of its 4 groups"),
        ({"size": 12, "multipliers": (1, 2, 4, 8)}, "size 12 cannot be halved 3 times"),
        ({"multipliers": ()}, "multipliers is empty"),
        ({"multipliers": (1, 0)}, "multipliers is 0; it must be at least 1"),
        ({"norm": "batch"}, "one of clip, frame"),
    ],
)
def test_configurations_that_are_refused(changes, message):
    with pytest.raises(ConfigError) as caught:
        SMALL.replace(**changes)
    assert message in str(caught.value)
