"""Simulates torch's caching allocator for CUDA: the memory that a process reserves, which `nvidia-smi` shows.

A freed block stays reserved, and later requests use it, whole or in parts.  A request that fits no free block reserves
another segment.  So the reserved bytes depend on the order of the requests, and exceed the allocated bytes.  Rules and
sizes are those of torch's native allocator with its default options.
"""

from __future__ import annotations

import bisect

_KIB, _MIB = 2**10, 2**20
_ROUNDING = 512
_SMALL = _MIB  # requests up to this size have separate segments
_SMALL_SEGMENT, _LARGE_SEGMENT = 2 * _MIB, 20 * _MIB
_MIN_LARGE, _GRANULARITY = 10 * _MIB, 2 * _MIB


class _Block:
    """A contiguous part of a segment, in use or free."""

    __slots__ = ("after", "before", "free", "number", "pool", "size")

    def __init__(self, size: int, pool: int, number: int) -> None:
        self.size, self.pool, self.number = size, pool, number
        self.free = False
        self.before: _Block | None = None
        self.after: _Block | None = None


class CachingAllocator:
    """`reserved` is the number of reserved bytes; it never decreases."""

    def __init__(self) -> None:
        self.reserved = 0
        self._free: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self._blocks: dict[int, _Block] = {}
        self._count = 0

    def allocate(self, size: int) -> tuple[int, int]:
        """Allocates a block for `size` bytes; returns its number, for `release`, and its rounded size."""
        size = max(_ROUNDING, -(-size // _ROUNDING) * _ROUNDING)
        pool = int(size > _SMALL)
        block = self._best(size, pool) or self._segment(size, pool)
        rest = block.size - size
        if rest > _SMALL if pool else rest >= _ROUNDING:
            self._split(block, size)
        return block.number, size

    def release(self, number: int) -> None:
        """Frees a block and joins it with free neighbours."""
        block = self._blocks[number]
        for other in (block.before, block.after):
            if other is not None and other.free:
                self._forget(other)
                self._join(block, other)
        self._keep(block)

    def _new(self, size: int, pool: int) -> _Block:
        self._count += 1
        block = self._blocks[self._count] = _Block(size, pool, self._count)
        return block

    def _best(self, size: int, pool: int) -> _Block | None:
        free = self._free[pool]
        index = bisect.bisect_left(free, (size, 0))
        if index == len(free):
            return None
        block = self._blocks[free.pop(index)[1]]
        block.free = False
        return block

    def _segment(self, size: int, pool: int) -> _Block:
        if not pool:
            whole = _SMALL_SEGMENT
        elif size < _MIN_LARGE:
            whole = _LARGE_SEGMENT
        else:
            whole = -(-size // _GRANULARITY) * _GRANULARITY
        self.reserved += whole
        return self._new(whole, pool)

    def _split(self, block: _Block, size: int) -> None:
        rest = self._new(block.size - size, block.pool)
        block.size = size
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.after = rest
        self._keep(rest)

    def _join(self, block: _Block, other: _Block) -> None:
        block.size += other.size
        if other is block.before:
            block.before = other.before
            if block.before is not None:
                block.before.after = block
        else:
            block.after = other.after
            if block.after is not None:
                block.after.before = block
        del self._blocks[other.number]

    def _keep(self, block: _Block) -> None:
        block.free = True
        bisect.insort(self._free[block.pool], (block.size, block.number))

    def _forget(self, block: _Block) -> None:
        free = self._free[block.pool]
        del free[bisect.bisect_left(free, (block.size, block.number))]
        block.free = False
