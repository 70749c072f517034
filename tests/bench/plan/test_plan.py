"""The search for the longest clip that fits."""

import math

import pytest

from bench.plan.plan import MOST_FRAMES, largest


@pytest.mark.parametrize("law", [(3e9, 2e6, 0), (1e9, 80e6, 2e5), (1e9, 39e6, 0), (1e9, 4e9, 5e8)])
def test_the_longest_clip_fits_and_a_longer_one_does_not(law):
    lengths = []

    def peak(frames):
        lengths.append(frames)
        return int(law[0] + law[1] * frames + law[2] * frames**2)

    limit = 40 * 10**9
    known = {frames: peak(frames) for frames in (64, 256, 1024)}
    longest = largest(peak, limit, known)
    assert peak(longest) <= limit
    assert peak(longest + max(1, math.ceil(0.011 * longest))) > limit
    assert len(lengths) < 20


def test_the_search_ends_when_no_length_or_every_length_fits():
    assert largest(lambda frames: 2 + frames, 1, {64: 66}) == 0
    assert largest(lambda frames: 1, 1, {64: 1}) == MOST_FRAMES
