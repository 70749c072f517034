"""The simulated allocator: segments, rounding, splitting, joining, and reserved bytes."""

from bench.plan.allocator import CachingAllocator

MIB = 2**20


def test_sizes_are_rounded_and_small_requests_share_a_segment():
    allocator = CachingAllocator()
    assert [allocator.allocate(size)[1] for size in (0, 1, 512, 513)] == [512, 512, 512, 1024]
    assert allocator.reserved == 2 * MIB


def test_large_requests_have_separate_segments():
    allocator = CachingAllocator()
    allocator.allocate(MIB + 1)
    assert allocator.reserved == 20 * MIB
    allocator.allocate(3 * MIB)  # out of the rest of the first
    assert allocator.reserved == 20 * MIB
    allocator.allocate(33 * MIB + 1)
    assert allocator.reserved == (20 + 34) * MIB


def test_released_blocks_stay_reserved_and_are_used_again():
    allocator = CachingAllocator()
    block, _ = allocator.allocate(64 * MIB)
    allocator.release(block)
    parts = [allocator.allocate(16 * MIB)[0] for _ in range(4)]
    assert allocator.reserved == 64 * MIB
    for part in parts:
        allocator.release(part)
    allocator.allocate(64 * MIB)  # the four are one again
    assert allocator.reserved == 64 * MIB


def test_separate_free_blocks_do_not_serve_a_larger_request():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(16 * MIB)[0] for _ in range(3)]
    allocator.release(blocks[0])
    allocator.release(blocks[2])
    allocator.allocate(32 * MIB)
    assert allocator.reserved == 80 * MIB


def test_a_request_takes_the_smallest_block_that_fits():
    allocator = CachingAllocator()
    large, small = (allocator.allocate(size * MIB)[0] for size in (40, 12))
    allocator.release(large)
    allocator.release(small)
    allocator.allocate(12 * MIB)
    allocator.allocate(40 * MIB)
    assert allocator.reserved == 52 * MIB
