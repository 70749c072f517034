"""Counts the bytes that autograd stores between the forward and the backward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn


def stored_bytes(forward: Callable[[], Tensor], module: nn.Module) -> int:
    """Bytes that the autograd graph of `forward` stores for the backward pass.

    The count is exact: it takes the whole storage of every saved tensor that is alive after the forward pass, once,
    and leaves out the parameters and buffers of `module`.
    """
    saved: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        handle = _Saved(tensor)
        saved.add(handle)
        return handle

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda handle: handle.tensor):
        result = forward()
    # Identifies a storage by its object, because storages on the meta device have no address.
    own = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
    storages = {s._cdata: s.nbytes() for s in (handle.tensor.untyped_storage() for handle in saved)}
    del result  # keeps the graph alive until here
    return sum(size for identity, size in storages.items() if identity not in own)


class _Saved:
    """A saved tensor; the graph is its only owner."""

    def __init__(self, tensor: Tensor) -> None:
        # Detached, because an output that its own operation saves would otherwise form a reference cycle.
        self.tensor = tensor.detach()
