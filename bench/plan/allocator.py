"""What CUDA's caching allocator of torch reserves for a sequence of allocations: the memory that `nvidia-smi` shows.

A block that is freed stays reserved and is given out again, whole or in parts; a request that no free block can hold
reserves a segment more.  So what a process holds depends on the order of its requests, and exceeds what was alive.
Rules and sizes are those of torch's native allocator with its default options.
"""

from __future__ import annotations

import bisect

_KIB, _MIB = 2**10, 2**20
_ROUNDING = 512
_SMALL = _MIB  # requests up to this size have segments of their own
_SMALL_SEGMENT, _LARGE_SEGMENT = 2 * _MIB, 20 * _MIB
_LEAST_LARGE, _WHOLE = 10 * _MIB, 2 * _MIB


class _Block:
    """A stretch of a segment, in use or free."""

    __slots__ = ("after", "before", "free", "number", "pool", "size")

    def __init__(self, size: int, pool: int, number: int) -> None:
        self.size, self.pool, self.number = size, pool, number
        self.free = False
        self.before: _Block | None = None
        self.after: _Block | None = None


class CachingAllocator:
    """`reserved` bytes after the requests so far, which only grow."""

    def __init__(self) -> None:
        self.reserved = 0
        self._free: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self._blocks: dict[int, _Block] = {}
        self._count = 0

    def allocate(self, size: int) -> tuple[int, int]:
        """A block for `size` bytes: the number to release it by, and the bytes that count as allocated."""
        size = max(_ROUNDING, -(-size // _ROUNDING) * _ROUNDING)
        pool = int(size > _SMALL)
        block = self._best(size, pool) or self._segment(size, pool)
        rest = block.size - size
        if rest > _SMALL if pool else rest >= _ROUNDING:
            self._split(block, size)
        return block.number, size

    def release(self, number: int) -> None:
        """Gives a block back, joined with free neighbours."""
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
        place = bisect.bisect_left(free, (size, 0))
        if place == len(free):
            return None
        block = self._blocks[free.pop(place)[1]]
        block.free = False
        return block

    def _segment(self, size: int, pool: int) -> _Block:
        if not pool:
            whole = _SMALL_SEGMENT
        elif size < _LEAST_LARGE:
            whole = _LARGE_SEGMENT
        else:
            whole = -(-size // _WHOLE) * _WHOLE
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
