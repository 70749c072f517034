"""Planted bugs: the contract must fail for each of these typical mistakes in the code of the mixers and ops.

A test replaces a part of the source of a function, for all modules that imported the function, until the test ends.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

import pytest

from temporal_zoo import build, use_backend
from temporal_zoo.contract import CHECKS, ContractError
from temporal_zoo.ops import agreement


@dataclass(frozen=True)
class Bug:
    """Replaces `old` by `new` in a function; then each of `caught_by` must fail for `spec` on the `pinned` backends."""

    what: str
    function: str
    old: str
    new: str
    spec: str
    caught_by: tuple[str, ...]
    pinned: dict[str, str] = field(default_factory=dict)


BUGS = [
    Bug(
        what="no flip: the backward direction of bimamba runs forwards",
        function="mixers.bimamba:BiMamba._ways",
        old="reverse=True",
        new="reverse=False",
        spec="bimamba",
        caught_by=("causality", "chunks"),
    ),
    Bug(
        what="no flip: the operator of the scan ignores the direction",
        function="ops.selective_scan._operator:_directions",
        old="reverse=backwards",
        new="reverse=False",
        spec="bimamba",
        caught_by=("chunks", "backends"),
        pinned={"selective_scan": "torch"},
    ),
    Bug(
        what="no flip: the reference scan runs in time order only",
        function="ops.selective_scan.reference:_sweep",
        old="reversed(steps) if direction.reverse else steps",
        new="steps",
        spec="bimamba",
        caught_by=("padding_values", "chunks", "backends"),
        pinned={"selective_scan": "reference"},
    ),
    Bug(
        what="no flip: the backward direction of s4d runs forwards",
        function="mixers._diagonal:run",
        old="reverse=backward",
        new="reverse=False",
        spec="s4d",
        caught_by=("causality", "chunks"),
    ),
    Bug(
        what="diagonal state off by one: the kernel starts one frame late",
        function="ops.diagonal_ssm._kernel:two_sided",
        old="both[:, size - 1 :] += kernel",
        new="both[:, size:] += kernel[:, :-1]",
        spec="s4d",
        caught_by=("chunks", "backends"),
        pinned={"diagonal_ssm": "chunked"},
    ),
    Bug(
        what="diagonal state off by one: a chunk reads its initial state without the first decay",
        function="ops.diagonal_ssm.chunked:_Way.make",
        old="2 * c.unsqueeze(-1) * table[..., 1:]",
        new="2 * c.unsqueeze(-1) * table[..., :-1]",
        spec="s4d",
        caught_by=("chunks", "backends"),
        pinned={"diagonal_ssm": "chunked"},
    ),
    Bug(
        what="diagonal state off by one: the reference decays the input of the same frame",
        function="ops.diagonal_ssm.reference:run",
        old="a * h + inputs[:, t, :, None]",
        new="a * (h + inputs[:, t, :, None])",
        spec="s4d",
        caught_by=("backends",),
    ),
    Bug(
        what="padding in the backward scan: the convolution of the selective layer gets no lengths",
        function="ops.selective_block._operator:_Layer.convolution",
        old="[], lengths, reverse",
        new="[], None, reverse",
        spec="bimamba",
        caught_by=("padding_values", "padding_gradients"),
    ),
    Bug(
        what="padding multiplied by zero, not filled with zero",
        function="interface:Mixer.forward",
        old="self.mix(x.masked_fill(padding, 0), lengths)",
        new="self.mix(x * ~padding, lengths)",
        spec="bimamba",
        caught_by=("padding_gradients",),
    ),
    Bug(
        what="missing check: the range of lengths",
        function="ops._lengths:check_lengths",
        old="1 <= least <= most <= frames",
        new="least <= most",
        spec="s4d",
        caught_by=("lengths",),
        pinned={"diagonal_ssm": "toeplitz"},
    ),
    Bug(
        what="missing check: one length for all rows",
        function="ops._lengths:check_lengths",
        old="lengths.shape != (rows,) or ",
        new="",
        spec="attn",
        caught_by=("lengths",),
    ),
    Bug(
        what="missing check: the dtype of lengths",
        function="ops._lengths:check_lengths",
        old="lengths.dtype != torch.int64 or ",
        new="",
        spec="attn",
        caught_by=("lengths",),
    ),
    Bug(
        what="missing check: rows of zero frames",
        function="ops._lengths:check_lengths",
        old="frames == 0",
        new="frames < 0",
        spec="identity",
        caught_by=("layout",),
    ),
    Bug(
        what="missing check: the layout",
        function="interface:Mixer._check_layout",
        old="x.ndim == 3 and x.shape[2] == self.dim",
        new="x.ndim == 3",
        spec="identity",
        caught_by=("layout",),
    ),
    Bug(
        what="missing check: the dtype of the weights",
        function="interface:Mixer._check_dtype",
        old="weight.dtype != x.dtype",
        new="weight.dtype is None",
        spec="bimamba",
        caught_by=("dtypes",),
    ),
    Bug(
        what="zero rows: a maximum over the rows",
        function="mixers._mamba_shell:run",
        old="selective_block(x,",
        new="selective_block(x + 0 * x.amax(0),",
        spec="bimamba",
        caught_by=("zero_rows",),
    ),
    Bug(
        what="mask on the wrong axis: padded queries are masked, padded keys are not",
        function="ops.attention.reference:run",
        old="[:, None, None, :]",
        new="[:, None, :, None]",
        spec="attn",
        caught_by=("padding_values", "padding_gradients"),
    ),
    Bug(
        what="mask on the wrong axis, in the blocked backend",
        function="ops.attention.blocked:_logits",
        old="[:, None, None, :]",
        new="[:, None, :, None]",
        spec="flash",
        caught_by=("padding_values", "backends"),
        pinned={"attention": "blocked"},
    ),
    Bug(
        what="the gradient of the gate lacks the factor that the gate multiplies",
        function="ops.selective_block._operator:_backward_block",
        old="silu_backward(dgated.mul_(total), z)",
        new="silu_backward(dgated, z)",
        spec="bimamba",
        caught_by=("backends",),
    ),
    Bug(
        what="the gradients of B and C are exchanged",
        function="ops.selective_block._operator:_backward_block",
        old="[dsteps, d.B, d.C]",
        new="[dsteps, d.C, d.B]",
        spec="mamba",
        caught_by=("backends",),
    ),
    Bug(
        what="the gradient through the projections lacks the gradient of the scan",
        function="ops.selective_block._operator:_backward_block",
        old="du.add_(d.u)",
        new="du",
        spec="mamba",
        caught_by=("backends",),
    ),
    Bug(
        what="no dt bias in the mixer",
        function="mixers._mamba_shell:Way.branch",
        old="dt_bias=core.dt_proj.bias",
        new="dt_bias=torch.zeros_like(core.dt_proj.bias)",
        spec="mamba",
        caught_by=("gradients",),
    ),
    Bug(
        what="no dt bias in a backend",
        function="ops.selective_scan._sweep:Sweep.read",
        old="dt + self.dt_bias",
        new="dt",
        spec="mamba",
        caught_by=("backends",),
    ),
    Bug(
        what="no dt bias in the reference",
        function="ops.selective_scan.reference:_sweep",
        old="dt + direction.dt_bias.to(dtype)",
        new="dt",
        spec="mamba",
        caught_by=("gradients", "backends"),
        pinned={"selective_scan": "reference"},
    ),
    Bug(
        what="gradients stop between chunks: mamba",
        function="mixers._mamba_shell:run_chunk",
        old="state.memory)",
        new="state.memory.detach())",
        spec="mamba",
        caught_by=("chunk_gradients",),
    ),
    Bug(
        what="state ignored: the scan",
        function="mixers._cores:run_chunk",
        old="initial=(memory,)",
        new="initial=None",
        spec="mamba",
        caught_by=("chunks",),
    ),
    Bug(
        what="state ignored: the convolution",
        function="mixers._mamba_shell:run_chunk",
        old="way.convolved(a, inputs, None)",
        new="way.convolved(a, None, None)",
        spec="bimamba",
        caught_by=("chunks",),
    ),
    Bug(
        what="state ignored: a backend",
        function="ops.selective_scan._operator:_all_or_none",
        old="_new_state(direction) if state is None else state",
        new="_new_state(direction)",
        spec="mamba",
        caught_by=("chunks", "backends"),
        pinned={"selective_scan": "torch"},
    ),
    Bug(
        what="state ignored: s4d",
        function="mixers._diagonal:run_chunk",
        old="initial=(initial,)",
        new="initial=None",
        spec="s4d",
        caught_by=("chunks",),
    ),
    Bug(
        what="both sweeps add the bias of the projection",
        function="mixers.bimamba:BiMamba.mix_chunk",
        old="None if reverse else self.out_proj.bias",
        new="self.out_proj.bias",
        spec="bimamba",
        caught_by=("chunks",),
    ),
    Bug(
        what="the causal convolution uses later frames",
        function="ops.causal_conv.reference:surround",
        old="torch.cat([start, x], dim=1)",
        new="torch.cat([x, start], dim=1)",
        spec="mamba",
        caught_by=("causality", "chunks"),
        pinned={"causal_conv": "reference"},
    ),
    Bug(
        what="the rotary positions are all zero",
        function="mixers._heads:apply_rotary",
        old="torch.arange(x.shape[1]",
        new="torch.zeros(x.shape[1]",
        spec="attn",
        caught_by=("order",),
    ),
    Bug(
        what="ops run fast backends in forward mode",
        function="ops._transforms:why_not",
        old="name = active()",
        new="name = None",
        spec="bimamba",
        caught_by=("forward_mode", "gradients_of_tangents", "transforms"),
    ),
    Bug(
        what="ops do not see torch.func",
        function="ops._transforms:_of_torch",
        old="torch._C._functorch.peek_interpreter_stack() is not None",
        new="False",
        spec="flash",
        caught_by=("transforms",),
    ),
    Bug(
        what="ops do not see dual numbers",
        function="ops._transforms:active",
        old="forward_ad._current_level >= 0",
        new="False",
        spec="s4d",
        caught_by=("forward_mode",),
    ),
    Bug(
        what="torch's glu, which has no backward pass through forward mode",
        function="mixers.s4d:_glu",
        old="_transforms.active() is None",
        new="True",
        spec="s4d",
        caught_by=("gradients_of_tangents",),
    ),
    Bug(
        what="a wrapper around a projection is not called, in the selective layer",
        function="mixers._layers:_is_plain",
        old="type(layer) not in (nn.Linear, nn.Conv1d)",
        new="False",
        spec="mamba",
        caught_by=("replaced_layers",),
    ),
    Bug(
        what="a wrapper around a projection is not called, in attention",
        function="mixers._layers:_is_plain",
        old="type(layer) not in (nn.Linear, nn.Conv1d)",
        new="False",
        spec="attn",
        caught_by=("replaced_layers",),
    ),
    Bug(
        what="a layer with hooks is not called",
        function="mixers._layers:_hooked",
        old="layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks",
        new="False",
        spec="bimamba",
        caught_by=("hooks",),
    ),
    Bug(
        what="no mean of the directions if layers are called",
        function="mixers._mamba_shell:run",
        old="y if scale == 1 else y * scale",
        new="y",
        spec="bimamba:merge=mean",
        caught_by=("replaced_layers", "hooks"),
    ),
    Bug(
        what="no flip: a convolution that is called runs in time order in both directions",
        function="mixers._mamba_shell:Way._in_order",
        old="x.flip(1) if self.reverse else x",
        new="x",
        spec="bimamba",
        caught_by=("replaced_layers", "hooks"),
    ),
    Bug(
        what="the bias of the step sizes is added twice if their projection is called",
        function="mixers._selective:SelectiveCore.direction",
        old="(layer(steps), None)",
        new="(layer(steps), layer.bias)",
        spec="mamba",
        caught_by=("replaced_layers", "hooks"),
    ),
    Bug(
        what="a fit without its ridge: the solution over features",
        function="ops.ridge_attention.torch:_inverse",
        old="add_(diagonal)",
        new="add_(1)",
        spec="mesa:heads=2:features=3:rotary=no",
        caught_by=("backends",),
    ),
    Bug(
        what="a fit without its ridge: the reference",
        function="ops.ridge_attention.reference:_inverse",
        old=" / ridge[:, None]",
        new=" / (0 * ridge[:, None] + 1)",
        spec="mesa:heads=2:features=3:rotary=no",
        caught_by=("gradients", "backends"),
        pinned={"ridge_attention": "reference"},
    ),
    Bug(
        what="a fit whose ridge does not learn",
        function="mixers.mesa:Mesa.mix",
        old="LEAST + softplus(",
        new="LEAST + 0 * softplus(",
        spec="mesa:heads=2:features=3:rotary=no",
        caught_by=("gradients",),
    ),
    Bug(
        what="the weight of a frame is left out of the sum of k k^T",
        function="ops.ridge_attention.torch:_InFeatures.__init__",
        old="self._weighted.mT @ k,",
        new="k.mT @ k,",
        spec="mesa:heads=2:features=3:rotary=no",
        caught_by=("backends",),
    ),
    Bug(
        what="the recursion over frames forgets the weight in its denominator",
        function="ops.ridge_attention.reference:_inverse",
        old="1 + weight *",
        new="1 +",
        spec="mesa:heads=2:features=3:rotary=no",
        caught_by=("backends",),
    ),
    Bug(
        what="the gradient of the keys forgets their part in k k^T",
        function="ops.ridge_attention.torch:backward",
        old="(e @ m.mT - u @ w.mT)",
        new="(v_ @ m.mT)",
        spec="mesa:heads=2:features=3:rotary=no",
        caught_by=("backends",),
    ),
    Bug(
        what="the gradient of the ridge has the wrong sign",
        function="ops.ridge_attention.torch:backward",
        old="dridge -=",
        new="dridge +=",
        spec="mesa:heads=2:features=3:rotary=no",
        caught_by=("backends",),
    ),
    Bug(
        what="the gradient ignores that queries and keys are normalised",
        function="ops.ridge_attention.torch:_through_length",
        old="(dunit - unit * (unit * dunit).sum(-1, keepdim=True))",
        new="dunit",
        spec="mesa:heads=2:features=3:rotary=no",
        caught_by=("backends",),
    ),
    Bug(
        what="the solution over frames gives a value its weight twice",
        function="ops.ridge_attention.torch:_InFrames.fit",
        old="self._root * v",
        new="self._root.square() * v",
        spec="mesa",
        caught_by=("backends",),
    ),
    Bug(
        what="the solution over frames forgets the ridge of its first term",
        function="ops.ridge_attention.torch:_InFrames.solve",
        old="right / self._ridge - ",
        new="right - ",
        spec="mesa",
        caught_by=("backends",),
    ),
    Bug(
        what="bigs runs both directions forwards",
        function="mixers.bigs:Bigs.mix",
        old="reverse=True",
        new="reverse=False",
        spec="bigs",
        caught_by=("causality",),
    ),
    Bug(
        what="padding enters the backward core of bigs on S6, whose inputs have a bias",
        function="mixers._gss_shell:CoreBranch.run",
        old="None, lengths)",
        new="None, None)",
        spec="bigs:core=s6:state=3:width=24",
        caught_by=("padding_values",),
    ),
    Bug(
        what="carried state ignored: that of gss",
        function="mixers.gss:Gss.mix_chunk",
        old="None if state is None else state.memory",
        new="None",
        spec="gss",
        caught_by=("chunks", "steps"),
    ),
    Bug(
        what="gradients stop at the borders of chunks: those of gss",
        function="mixers.gss:Gss.mix_chunk",
        old="state.memory)",
        new="state.memory.detach())",
        spec="gss",
        caught_by=("chunk_gradients",),
    ),
    Bug(
        what="the names of parameters without decay are those of the other core",
        function="mixers._cores:no_decay",
        old="core.NO_DECAY",
        new="SelectiveCore.NO_DECAY",
        spec="gss",
        caught_by=("state",),
    ),
    Bug(
        what="the gate is forgotten where a chunk runs on S4D",
        function="mixers._cores:run_chunk",
        old="_gated(y, gate)",
        new="y",
        spec="mamba:core=s4d",
        caught_by=("chunks", "steps"),
    ),
    Bug(
        what="both directions of bimamba on S4D run forwards",
        function="mixers._cores:run",
        old="[core], [reverse]",
        new="[core], [False]",
        spec="bimamba:core=s4d",
        caught_by=("chunks",),
    ),
    Bug(
        what="padding enters the backward core of bigs on S4D, whose inputs have a bias",
        function="mixers._cores:run",
        old="[reverse], lengths",
        new="[reverse], None",
        spec="bigs",
        caught_by=("padding_values",),
    ),
    Bug(
        what="the weight of a frame is forgotten in the gradient of its value",
        function="ops.linear_attention.torch:backward",
        old="_scaled(du, bw)",
        new="du",
        spec="gatedlin",
        caught_by=("backends",),
        pinned={"linear_attention": "torch"},
    ),
    Bug(
        what="the gradient through the denominator has the wrong sign",
        function="ops.linear_attention.torch:backward",
        old="slope = -(g",
        new="slope = (g",
        spec="gatedlin",
        caught_by=("backends",),
        pinned={"linear_attention": "torch"},
    ),
    Bug(
        what="the state of linear attention is transposed: keys and values changed places",
        function="ops.linear_attention.torch:_mixed",
        old="q @ (k.mT @ u)",
        new="q @ (u.mT @ k)",
        spec="linattn:features=2",
        caught_by=("backends",),
        pinned={"linear_attention": "torch"},
    ),
    Bug(
        what="padded keys take part in the softmax over frames",
        function="mixers.linattn:LinAttn.mix",
        old='fill_padding(k, lengths, float("-inf"))',
        new="k",
        spec="linattn",
        caught_by=("padding_values", "padding_gradients"),
    ),
    Bug(
        what="the root mean square of queries and keys is taken over frames",
        function="mixers.gatedlin:_rms_normed",
        old="mean(-1, keepdim=True)",
        new="mean(1, keepdim=True)",
        spec="gatedlin",
        caught_by=("padding_values", "padding_gradients"),
    ),
]
# Bugs that the layers around an op hide; the comparison of `zoo doctor` catches them.
# `spec` is the op; `caught_by` lists its backends that differ from the reference.
BUGS_OF_OPS = [
    Bug(
        what="padding enters the sums of linear attention",
        function="ops.linear_attention.torch:_real",
        old="fill_padding(x[rows], real)",
        new="x[rows]",
        spec="linear_attention",
        caught_by=("torch",),
    ),
    Bug(
        what="padded keys of the denominator get a gradient",
        function="ops.linear_attention.torch:backward",
        old="fill_padding(dnk, lengths)",
        new="dnk",
        spec="linear_attention",
        caught_by=("torch",),
    ),
    Bug(
        what="the denominator of linear attention does not sum over keys",
        function="ops.linear_attention.torch:_denominator",
        old="norm_k.sum(1, keepdim=True)",
        new="norm_k",
        spec="linear_attention",
        caught_by=("torch",),
    ),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_the_contract_fails_for(bug, monkeypatch):
    with use_backend(**bug.pinned):
        for name in bug.caught_by:
            CHECKS[name](lambda: build(bug.spec, 8))
        plant(bug, monkeypatch)
        for name in bug.caught_by:
            with pytest.raises(ContractError):
                CHECKS[name](lambda: build(bug.spec, 8))


@pytest.mark.parametrize("bug", BUGS_OF_OPS, ids=lambda bug: bug.what)
def test_the_comparison_with_the_reference_catches(bug, monkeypatch):
    for backend in bug.caught_by:
        assert agreement.try_backend(bug.spec, backend, "cpu")["agrees"]
    plant(bug, monkeypatch)
    for backend in bug.caught_by:
        assert not agreement.try_backend(bug.spec, backend, "cpu")["agrees"]


def plant(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    function = find(bug.function)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(bug.old) == 1, f"{bug.function} has changed: update `old` and `new` of this bug"
    scope: dict[str, Callable] = {}
    exec(source.replace(bug.old, bug.new), function.__globals__, scope)
    planted = scope[function.__name__]
    monkeypatch.setattr(function, "__code__", getattr(planted, "__func__", planted).__code__)


def find(function: str) -> Callable:
    """The plain function of "module:Class.method" in `temporal_zoo`."""
    module, _, path = function.partition(":")
    value = import_module(f"temporal_zoo.{module}")
    for name in path.split("."):
        value = getattr(value, name)
    return getattr(value, "__func__", value)
