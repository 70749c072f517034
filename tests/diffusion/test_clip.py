"""Clips and batches: range, padding, and values that the constructors refuse."""

import pytest
import torch

from diffusion.clip import Clip, ClipBatch, from_uint8, to_uint8


def clip(frames: int, *, label: int | None = None, seed: int = 0, size: int = 3) -> Clip:
    dice = torch.Generator().manual_seed(seed)
    return Clip(torch.randint(256, (frames, 3, size, size), generator=dice, dtype=torch.uint8), 12.0, label)


def test_all_256_values_convert_to_floats_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    values = from_uint8(pixels)
    assert values.min() == -1
    assert values.max() == 1
    assert torch.equal(to_uint8(values), pixels)


def test_samples_outside_the_range_are_clamped_and_nan_is_refused():
    assert to_uint8(torch.tensor([-3.0, 7.0])).tolist() == [0, 255]
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        to_uint8(torch.tensor([0.0, torch.nan]))


def test_half_precision_samples_convert_to_colours():
    assert to_uint8(torch.tensor([-1, 0, 1], dtype=torch.bfloat16)).tolist() == [0, 128, 255]


def test_a_batch_of_equal_lengths_has_no_lengths():
    batch = ClipBatch.of([clip(4), clip(4, seed=1)])
    assert batch.values.shape == (2, 4, 3, 3, 3)
    assert batch.lengths is None
    assert batch.labels is None


def test_a_batch_pads_with_zeros_and_returns_the_clips():
    clips = [clip(2, label=7), clip(5, label=1, seed=1), clip(1, label=0, seed=2)]
    batch = ClipBatch.of(clips)
    assert batch.lengths.tolist() == [2, 5, 1]
    assert batch.labels.tolist() == [7, 1, 0]
    assert not batch.values[0, 2:].any()
    for given, back in zip(clips, batch.to_clips(12.0), strict=True):
        assert torch.equal(given.pixels, back.pixels)
        assert given.label == back.label


def test_a_moved_batch_has_the_same_content():
    batch = ClipBatch.of([clip(2, label=1), clip(3, label=2)])
    moved = batch.to("meta")
    assert {moved.values.device.type, moved.lengths.device.type, moved.labels.device.type} == {"meta"}
    assert moved.values.shape == batch.values.shape


@pytest.mark.parametrize(
    ("pixels", "fps", "message"),
    [
        (torch.zeros(2, 3, 4, 4), 12.0, "holds uint8 pixels, not torch.float32"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), 12.0, r"is \(frames, channels, height, width\).*got \(3, 4, 4\)"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), 12.0, r"none of them 0; got \(0, 3, 4, 4\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 0.0, "fps must be positive"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), float("nan"), "fps must be positive"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device="meta"), 12.0, "is on the CPU, but"),
    ],
)
def test_a_clip_refuses(pixels, fps, message):
    with pytest.raises(ValueError, match=message):
        Clip(pixels, fps)


VALUES = torch.zeros(2, 3, 1, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((VALUES.byte(),), "holds floats in"),
        ((VALUES[0],), r"is \(clips, frames, channels, height, width\)"),
        ((VALUES + 1.5,), r"in \[1.5, 1.5\]"),
        ((VALUES + torch.nan,), r"in \[nan, nan\]"),
        ((VALUES, torch.tensor([1, 4])), r"must be in 1\.\.3.*got \[1, 4\]"),
        ((VALUES, torch.tensor([0, 3])), r"must be in 1\.\.3"),
        ((VALUES, torch.tensor([1.0, 2.0])), "lengths must be int64"),
        ((VALUES, torch.tensor([1])), r"lengths must be int64 of shape \(2,\)"),
        ((VALUES + 0.5, torch.tensor([1, 3])), "after a clip's length must be zero"),
        ((VALUES, None, torch.tensor([1])), "labels must be int64"),
    ],
)
def test_a_batch_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClipBatch(*arguments)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "at least one clip"),
        ([clip(2), clip(2, size=4)], "must have equal channels, height and width"),
        ([clip(2, label=1), clip(2)], "1 of 2 clips have a label"),
    ],
)
def test_clips_that_cannot_form_a_batch(clips, message):
    with pytest.raises(ValueError, match=message):
        ClipBatch.of(clips)
