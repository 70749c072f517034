"""Streaming: steps, chunks and states of every stateful mixer, and of one that another project would write."""

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from temporal_zoo import InvalidInput, Mixer, StatefulMixer, build, names
from temporal_zoo.streaming import State, over_chunks

CAUSAL = [*names(causal=True, stateful=True), "s4d:bidirectional=no"]
BOTH = ["bimamba", "s4d"]


def double(spec, dim=6):
    torch.manual_seed(0)
    mixer = build(spec, dim, dtype=torch.float64)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer


@pytest.mark.parametrize("spec", CAUSAL)
def test_steps_give_the_output_for_the_whole_clip(spec):
    mixer = double(spec)
    x = torch.randn(3, 7, 6, dtype=torch.float64)
    state, outputs = mixer.init_state(3), []
    for frame in x.unbind(1):
        y, state = mixer.step(frame, state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), mixer(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("sizes", [[1, 6, 2, 4], [13], [5, 8]])
@pytest.mark.parametrize("spec", [*CAUSAL, *BOTH])
def test_chunks_of_any_sizes_give_values_and_gradients_of_the_whole_clip(spec, sizes):
    mixer = double(spec)
    x = torch.randn(2, 13, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)
    wanted = [x, *mixer.parameters()]
    whole, pieces = mixer(x), torch.cat(over_chunks(mixer, x.split(sizes, dim=1)), dim=1)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-10)
    expected, found = (torch.autograd.grad((y * weights).sum(), wanted, retain_graph=True) for y in (whole, pieces))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("spec", CAUSAL)
def test_a_detached_state_keeps_values_and_drops_gradients(spec):
    mixer = double(spec)
    x = torch.randn(2, 8, 6, dtype=torch.float64, requires_grad=True)
    _, state = mixer.forward_chunk(x[:, :4], None)
    y, _ = mixer.forward_chunk(x[:, 4:], state.detach())
    torch.testing.assert_close(y, mixer(x)[:, 4:], rtol=0, atol=1e-10)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert not slope[:, :4].any()
    assert slope[:, 4:].any()


@pytest.mark.parametrize("spec", [*CAUSAL, *BOTH])
def test_rows_of_a_state_can_be_selected_moved_and_flattened(spec):
    mixer = double(spec)
    x = torch.randn(4, 6, 6, dtype=torch.float64)
    _, state = mixer.forward_chunk(x[:, :3], None)
    y, _ = mixer.forward_chunk(x[:, 3:], state)
    for rows in (slice(1, 3), torch.tensor([3, 0, 0]), torch.tensor([True, False, False, True])):
        part = state[rows]
        assert part.rows == len(x[rows])
        torch.testing.assert_close(mixer.forward_chunk(x[rows, 3:], part)[0], y[rows], rtol=0, atol=1e-10)
    leaves, shape = tree_flatten(state)
    assert leaves
    assert type(tree_unflatten(leaves, shape)) is type(state)
    small = state.to(dtype=torch.float32)
    assert {t.dtype for t in tree_leaves(small)} <= {torch.float32, torch.complex64}
    assert {t.device.type for t in tree_leaves(state.to("meta"))} == {"meta"}


@pytest.mark.parametrize("spec", [*CAUSAL, *BOTH])
def test_init_state_has_the_shapes_and_dtypes_of_later_states(spec):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        mixer = build(spec, 6, dtype=dtype)
        start = mixer.init_state(3)
        _, state = mixer.forward_chunk(torch.randn(3, 5, 6, dtype=dtype), start)
        for before, after in zip(tree_leaves(start), tree_leaves(state), strict=True):
            assert (before.shape, before.dtype) == (after.shape, after.dtype)
    assert all(t.is_meta for t in tree_leaves(mixer.init_state(2, device="meta")))


@pytest.mark.parametrize("spec", CAUSAL)
def test_a_step_compiles_into_one_graph(spec):
    mixer = build(spec, 6)
    step = torch.compile(mixer.step, fullgraph=True, backend="aot_eager")
    x, state = torch.randn(2, 3, 6), mixer.init_state(2)
    compiled = state
    with torch.no_grad():
        for frame in x.unbind(1):
            y, state = mixer.step(frame, state)
            z, compiled = step(frame, compiled)
            torch.testing.assert_close(z, y)
    torch.compiler.reset()


@pytest.mark.parametrize("spec", BOTH)
def test_a_mixer_of_both_directions_has_no_step(spec):
    mixer = build(spec, 6)
    with pytest.raises(InvalidInput, match=r"depends on later frames\. .*over_chunks"):
        mixer.step(torch.randn(2, 6), None)


def test_what_does_not_fit_is_one_sentence():
    mixer = build("mamba", 6)
    with pytest.raises(InvalidInput, match=r"step takes one frame of every row, \(rows, 6\)"):
        mixer.step(torch.randn(2, 1, 6), None)
    with pytest.raises(InvalidInput, match="no sweep with reverse=True; it has reverse=False"):
        mixer.forward_chunk(torch.randn(2, 3, 6), None, reverse=True)
    with pytest.raises(InvalidInput, match=r"the state has 3 rows and x has 2; select rows with state\[rows\]"):
        mixer.step(torch.randn(2, 6), mixer.init_state(3))
    with pytest.raises(InvalidInput, match=r"write state\[1:2\]"):
        mixer.init_state(3)[1]
    with pytest.raises(InvalidInput, match=r"x is torch\.float64"):
        mixer.step(torch.randn(2, 6, dtype=torch.float64), None)
    with pytest.raises(InvalidInput, match="cannot be evaluated in chunks"):
        over_chunks(build("s4d:mlp=8", 6), [torch.randn(1, 2, 6)])


class Average(StatefulMixer):
    """What another project writes: one method for chunks, with a tensor as the state."""

    causal = True
    passes = (False,)

    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.map = nn.Linear(dim, dim)

    def mix(self, x, lengths):
        return self.mix_chunk(x, None)[0]

    def mix_chunk(self, x, state, *, reverse=False):
        sums = x.cumsum(1) if state is None else x.cumsum(1) + state
        return self.map(sums), sums[:, -1:]


def test_one_method_for_chunks_gives_steps():
    mixer = Average(4, Mixer.Config())
    x = torch.randn(2, 5, 4)
    state, outputs = mixer.init_state(2), []
    for frame in x.unbind(1):
        y, state = mixer.step(frame, state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), mixer(x))
    assert not isinstance(state, State)
