"""Bytes of a training step, counted on the meta device: what each part takes, and the most that is alive at once.

A step runs with tensors that have shapes and no values.  Every storage that an operation makes is counted from its
making to its end, in the order of the real step, so the peak is that of the real step; what a kernel takes and gives
back inside one operation is not seen, unless the operator has a rehearsal (`selective_block.rehearsals`).
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
    """What one training step of a setup takes.

    Resident are `parameters`, `gradients` (of the step before, alive during the forward pass), `optimizer`, `average`
    (the moving average of the weights).  `stored` is what the forward pass keeps for backward, without parameters.
    `transient` is what the peak has above all of these, the input and short-lived results of operations among it.
    `reserved` is what torch's CUDA allocator holds for such a step; None for a CPU.
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
        """The most bytes alive at any moment of a step."""
        return self.parameters + self.gradients + self.optimizer + self.average + self.stored + self.transient


class Ledger(TorchDispatchMode):
    """Counts the bytes that are alive while it is active; `peak` is the most so far.

    Args:
        allocator: every storage is requested from it and released to it.
    """

    def __init__(self, allocator: CachingAllocator) -> None:
        super().__init__()
        self.allocator = allocator
        self.alive = 0
        self.peak = 0
        self._known: set[int] = set()
        self._rehearsals = rehearsals()

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Counts the storages of meta tensors, each once; an optimizer's counts of steps, for one, live on the CPU."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            # The identity of a storage, and not its address: on the meta device none has one.
            if tensor.is_meta and (identity := storage._cdata) not in self._known:
                block, size = self.allocator.allocate(storage.nbytes())
                self._known.add(identity)
                self.alive += size
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._end, identity, block, size)

    def _end(self, identity: int, block: int, size: int) -> None:
        self._known.discard(identity)
        self.allocator.release(block)
        self.alive -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        if rehearsal := self._rehearsals.get(function._schema.name):
            with self:
                rehearsal(*args)
        return result


def account(step: FixedBatchStep, device: str, *, gradients_before: bool = True) -> Bytes:
    """The bytes of a step that lives on the meta device, as on `device` ("cuda" or "cpu"): not of the first one, but
    when the optimizer has its state and, with `gradients_before`, the gradients of the step before are there.

    Call it where ops choose for that device (`temporal_zoo.ops.planning`).
    """
    stored = stored_bytes(step.forward, step.network)
    if gradients_before:
        step.pretend_a_step_was_taken()
    allocator = CachingAllocator()
    ledger = Ledger(allocator)
    parts = step.parts()
    for tensors in parts.values():
        ledger.add(tensors)
    with ledger:
        step()
    sizes = {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in parts.items()}
    transient = ledger.peak - stored - sum(size for name, size in sizes.items() if name != "batch")
    return Bytes(
        parameters=sizes["parameters"],
        gradients=sizes["gradients"],
        optimizer=sizes["optimizer"],
        average=sizes["average"],
        stored=stored,
        transient=transient,
        reserved=allocator.reserved if device == "cuda" else None,
    )
