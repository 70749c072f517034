"""Bytes that autograd stores between forward and backward: the memory that the choice of a mixer decides on."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn


def stored_bytes(forward: Callable[[], Tensor], module: nn.Module) -> int:
    """Bytes that the autograd graph of `forward` holds for the backward pass when the forward pass has ended.

    Counted exactly: whole storages, each once, of all saved tensors that are still alive; those of `module`'s own
    parameters and buffers, which exist anyway, left out.
    """
    held: weakref.WeakSet[_Held] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Held:
        handle = _Held(tensor)
        held.add(handle)
        return handle

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda handle: handle.tensor):
        result = forward()
    # The identity of a storage, and not its address: on the meta device none has one.
    own = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
    storages = {s._cdata: s.nbytes() for s in (handle.tensor.untyped_storage() for handle in held)}
    del result  # the graph had to live until here
    return sum(size for identity, size in storages.items() if identity not in own)


class _Held:
    """A saved tensor; the graph is its only owner."""

    def __init__(self, tensor: Tensor) -> None:
        # Without its own place in the graph: a result that its operation keeps would keep the operation in turn.
        self.tensor = tensor.detach()
