"""Mixers use the weights of plain layers directly; they call every other layer, or refuse it by its name."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from temporal_zoo import build
from temporal_zoo.errors import InvalidInput
from temporal_zoo.mixers._layers import plain


class Wrapper(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return self.base(x)


def with_layer(mixer, name, layer):
    mixer.set_submodule(name, layer)
    return mixer


def layers(mixer):
    return [name for name, layer in mixer.named_modules() if isinstance(layer, (nn.Linear, nn.Conv1d))]


def with_forward(layer):
    layer.forward = lambda x: x
    return layer


def with_hook(register):
    def make(layer):
        getattr(layer, register)(lambda *_: None)
        return layer

    return make


class Elsewhere(torch.Tensor):
    """A tensor subclass as a weight, such as a quantised or a distributed one."""

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return Elsewhere(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return NotImplemented if function != torch.ops.aten.detach.default else args[0]


def with_such_a_weight(layer):
    layer.weight = nn.Parameter(Elsewhere(layer.weight.data))
    return layer


@pytest.mark.parametrize(
    "change",
    [
        Wrapper,
        with_forward,
        with_such_a_weight,
        nn.utils.parametrizations.weight_norm,
        lambda layer: prune.identity(layer, "weight"),
        *map(
            with_hook,
            (
                "register_forward_hook",
                "register_forward_pre_hook",
                "register_full_backward_hook",
                "register_full_backward_pre_hook",
            ),
        ),
    ],
)
def test_a_changed_layer_is_not_plain(change):
    assert plain(nn.Linear(3, 4), nn.Conv1d(3, 3, 2))
    assert not plain(nn.Linear(3, 4), change(nn.Linear(3, 4)))


def test_no_layer_is_plain_under_a_hook_for_all_modules():
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not plain(nn.Linear(3, 4))
    finally:
        hook.remove()
    assert plain(nn.Linear(3, 4))


@pytest.mark.parametrize("spec", ["attn", "flash", "mamba", "bimamba", "bimamba:flavour=vim", "mamba:conv=1"])
@pytest.mark.parametrize("lengths", [None, [7, 1, 4]], ids=["whole", "padded"])
def test_called_layers_compute_the_same_as_fused_weights(spec, lengths):
    mixer = build(spec, 6).double()
    x = torch.randn(3, 7, 6, dtype=torch.float64)
    lengths = lengths and torch.tensor(lengths)
    wanted = mixer(x, lengths)
    for name in layers(mixer):
        with_layer(mixer, name, Wrapper(mixer.get_submodule(name)))
    torch.testing.assert_close(mixer(x, lengths), wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("spec", ["mamba", "bimamba", "bimamba:flavour=vim"])
def test_chunks_add_up_with_wrapped_layers(spec):
    mixer = build(spec, 6).double()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    for name in layers(mixer):
        if name != "out_proj":
            with_layer(mixer, name, Wrapper(mixer.get_submodule(name)))
    total = 0
    for reverse in mixer.passes:
        state, parts = None, []
        for chunk in x.split(4, dim=1)[:: -1 if reverse else 1]:
            part, state = mixer.mix_chunk(chunk, state, reverse=reverse)
            parts.append(part)
        total = total + torch.cat(parts[:: -1 if reverse else 1], dim=1)
    torch.testing.assert_close(total, mixer(x), rtol=0, atol=1e-13)


def test_sweeps_before_a_wrapped_projection_are_refused_by_its_name():
    mixer = build("bimamba", 6)
    with_layer(mixer, "out_proj", Wrapper(mixer.out_proj))
    with pytest.raises(InvalidInput, match=r"plain nn.Linear as out_proj.*a Wrapper.*merge the adapter"):
        mixer.mix_chunk(torch.randn(2, 3, 6), None)


@pytest.mark.parametrize("spec", ["attn", "flash", "mamba", "bimamba"])
def test_an_additional_bias_is_applied(spec):
    name = "heads.qkv" if spec in ("attn", "flash") else "core.x_proj"
    mixer = build(spec, 6)
    x = torch.randn(2, 5, 6)
    before = mixer(x)
    old = mixer.get_submodule(name)
    new = nn.Linear(old.in_features, old.out_features)
    new.weight = old.weight
    with_layer(mixer, name, new)
    assert (mixer(x) - before).abs().max() > 1e-3 * before.abs().max()


@pytest.mark.parametrize("spec", ["mamba", "bimamba"])
@pytest.mark.parametrize("name", ["core.dt_proj", "conv1d"])
def test_a_removed_bias_is_not_applied(spec, name):
    mixer = build(spec, 6).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    layer = mixer.get_submodule(name)
    with torch.no_grad():
        layer.bias.zero_()
    wanted = mixer(x)
    layer.bias = None
    torch.testing.assert_close(mixer(x), wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "conv", [nn.Conv1d(12, 12, 4, groups=12, dilation=2), nn.Conv1d(12, 12, 3, groups=12)], ids=["dilated", "short"]
)
def test_a_convolution_of_another_shape_is_refused_by_its_name(conv):
    mixer = with_layer(build("mamba", 6), "conv1d", conv)
    with pytest.raises(InvalidInput, match="the short convolution, conv1d, is a Conv1d that returns"):
        mixer(torch.randn(2, 9, 6))


def test_plain_layers_are_fused_and_one_hook_prevents_it():
    mixer = build("bimamba", 6)
    assert "selective_block" in graph(mixer(torch.randn(2, 3, 6)))
    mixer.core_b.dt_proj.register_forward_hook(lambda *_: None)
    assert "selective_block" not in graph(mixer(torch.randn(2, 3, 6)))


def graph(y):
    """The names of all functions in the autograd graph of y."""
    found, ahead = [], [y.grad_fn]
    while ahead:
        node = ahead.pop()
        found.append(node.name())
        ahead += [each for each, _ in node.next_functions if each is not None]
    return " ".join(found)
