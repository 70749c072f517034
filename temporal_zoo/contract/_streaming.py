"""Checks of mixers that can be evaluated in chunks: values, gradients through states, and the states themselves."""

from __future__ import annotations

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from temporal_zoo.contract._common import (
    Make,
    in_chunks,
    require,
    require_same,
    require_same_step,
    training_step,
    with_nonzero_weights,
)
from temporal_zoo.interface import StatefulMixer
from temporal_zoo.streaming import State, over_chunks


def check_chunks(make: Make) -> None:
    """Chunks of 1, 5 and 16 frames, with a state from each to the next, give the output for the whole clip."""
    mixer = with_nonzero_weights(make)
    if not isinstance(mixer, StatefulMixer) or not mixer.passes:
        return
    x = torch.randn(2, 33, mixer.dim)
    with torch.no_grad():
        whole = mixer(x)
        for size in (1, 5, 16):
            total = torch.cat(over_chunks(mixer, x.split(size, dim=1)), dim=1)
            require(
                total.dtype == whole.dtype,
                f"the output in chunks has {total.dtype}, the output of the whole clip {whole.dtype}",
            )
            require_same(
                total,
                whole,
                f"chunks of {size} frames differ from the whole clip: long clips would have seams between chunks",
            )


def check_chunk_gradients(make: Make) -> None:
    """Gradients through the states of chunks equal those of the whole clip, for the input and every parameter."""
    mixer = with_nonzero_weights(make).double()
    x = torch.randn(2, 7, mixer.dim, dtype=torch.float64)
    weights = torch.randn_like(x)
    if pieces := in_chunks(mixer, x, weights):
        whole = {f"{name} in chunks": tensor for name, tensor in training_step(mixer, x, weights, None).items()}
        require_same_step(
            pieces, whole, "the {} differs from that of the whole clip: training in chunks would ignore earlier frames"
        )


def check_states(make: Make) -> None:
    """`init_state` is the first state; states can be indexed by rows, detached, flattened and restored."""
    mixer = with_nonzero_weights(make)
    if not isinstance(mixer, StatefulMixer):
        return
    x = torch.randn(3, 5, mixer.dim)
    for reverse in mixer.passes:
        first, rest = (x[:, 2:], x[:, :2]) if reverse else (x[:, :2], x[:, 2:])
        start = mixer.init_state(3)
        y, state = mixer.forward_chunk(first, start, reverse=reverse)
        require_same(
            y,
            mixer.forward_chunk(first, None, reverse=reverse)[0],
            "init_state is not the state before the first frame: a stream would begin with a frame that does not exist",
        )
        if not isinstance(state, State):
            continue
        expected = mixer.forward_chunk(rest, state, reverse=reverse)[0]
        rows = torch.tensor([2, 1])
        require_same(
            mixer.forward_chunk(rest[rows], state[rows], reverse=reverse)[0],
            expected[rows],
            "rows of a state do not belong to rows of the input: the streams of a batch would be confused",
        )
        leaves, shape = tree_flatten(state)
        require(
            bool(leaves) and all(isinstance(leaf, torch.Tensor) for leaf in leaves),
            "the state is not a registered pytree of tensors: torch.compile and torch.func could not take it",
        )
        require_same(
            mixer.forward_chunk(rest, tree_unflatten(leaves, shape), reverse=reverse)[0],
            expected,
            "a state that was flattened and restored gives another output: torch.compile would change the result",
        )
        detached = tree_leaves(state.detach())
        require(
            not any(leaf.requires_grad for leaf in detached),
            "a detached state keeps its autograd graph: truncated backpropagation would keep all frames in memory",
        )


def check_steps(make: Make) -> None:
    """Frame by frame, a causal mixer gives the output for the whole clip."""
    mixer = with_nonzero_weights(make)
    if not isinstance(mixer, StatefulMixer) or mixer.passes != (False,):
        return
    x = torch.randn(2, 6, mixer.dim)
    with torch.no_grad():
        state, frames = mixer.init_state(2), []
        for frame in x.unbind(1):
            y, state = mixer.step(frame, state)
            frames.append(y)
        require_same(
            torch.stack(frames, 1), mixer(x), "frame by frame the output is different: a live stream would drift"
        )
