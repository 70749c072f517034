"""Counts the bytes of a training step on the meta device: the bytes of each part, and the peak.

A step runs with tensors that have shapes and no values.  `ByteCounter` counts every storage from its allocation to its
release, in the order of the real step, so the peak is that of the real step.  It does not see memory that a kernel
allocates and releases inside one operation, unless the operator has a rehearsal (`selective_block.rehearsals`).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.sweep.training_step import FixedBatchStep
from temporal_zoo._support.stored_bytes import stored_bytes
from temporal_zoo.ops.selective_block import rehearsals

from .allocator import CachingAllocator


@dataclass(frozen=True)
class Bytes:
    """The bytes of one training step.

    Args:
        parameters: weights and buffers.
        gradients: gradients of the step before, which exist during the forward pass.
        optimizer: the state of the optimizer.
        average: the moving average of the weights.
        stored: what the forward pass keeps for backward, without parameters.
        transient: the rest of the peak, such as the input and short-lived results of operations.
        reserved: what torch's CUDA allocator reserves for the step; None for a CPU.
    """

    parameters: int
    gradients: int
    optimizer: int
    average: int
    stored: int
    transient: int
    reserved: int | None

    @property
    def peak(self) -> int:
        """The most bytes that exist at the same time."""
        return self.parameters + self.gradients + self.optimizer + self.average + self.stored + self.transient


class ByteCounter(TorchDispatchMode):
    """Counts the allocated bytes while it is active; `peak` is the maximum.

    Args:
        allocator: simulates the requests and releases of all storages.
    """

    def __init__(self, allocator: CachingAllocator) -> None:
        super().__init__()
        self.allocator = allocator
        self.allocated = 0
        self.peak = 0
        self._known: set[int] = set()
        self._rehearsals = rehearsals()

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Counts the storages of meta tensors, each once; step counters of optimizers are on the CPU."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            # The identity of a storage instead of its address, because storages on the meta device have no address.
            if tensor.is_meta and (identity := storage._cdata) not in self._known:
                block, size = self.allocator.allocate(storage.nbytes())
                self._known.add(identity)
                self.allocated += size
                self.peak = max(self.peak, self.allocated)
                weakref.finalize(storage, self._end, identity, block, size)

    def _end(self, identity: int, block: int, size: int) -> None:
        self._known.discard(identity)
        self.allocator.release(block)
        self.allocated -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        if rehearsal := self._rehearsals.get(function._schema.name):
            with self:
                rehearsal(*args)
        return result


def account(step: FixedBatchStep, device: str, *, gradients_before: bool = True) -> Bytes:
    """The bytes of a step that is not the first step of a training, so that the state of the optimizer exists.

    Call it inside `temporal_zoo.ops.planning`, so that ops choose backends for the device.

    Args:
        step: a step on the meta device.
        device: "cuda" or "cpu".
        gradients_before: whether the gradients of the step before exist when the step starts.
    """
    stored = stored_bytes(step.forward, step.network)
    if gradients_before:
        step.pretend_a_step_was_taken()
    allocator = CachingAllocator()
    counter = ByteCounter(allocator)
    sizes = {}
    for name, tensors in step.parts().items():
        counter.add(tensors)
        sizes[name] = sum(tensor.nbytes for tensor in tensors)
    # The step releases the old gradients before backward; a reference to them here would keep them in the count.
    del tensors
    with counter:
        step()
    transient = counter.peak - stored - sum(size for name, size in sizes.items() if name != "batch")
    return Bytes(
        parameters=sizes["parameters"],
        gradients=sizes["gradients"],
        optimizer=sizes["optimizer"],
        average=sizes["average"],
        stored=stored,
        transient=transient,
        reserved=allocator.reserved if device == "cuda" else None,
    )
