"""I3D and what is put into it, against values of the official network and published ones."""

import numpy as np
import pytest
import torch

from diffusion.evaluation import EvaluationError
from diffusion.evaluation.pixels import prepared, resized
from diffusion.evaluation.protocol import EvaluationProtocol


def constant(frames, size=8):
    """Two clips, black and white: (2, t, 3, size, size) uint8."""
    return torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None, None].expand(2, frames, 3, size, size)


def fvd_of_constants(i3d, frames):
    """Covariances vanish, so it is the squared distance of two vectors of logits."""
    black, white = i3d(prepared(constant(frames), EvaluationProtocol(), 224)).double()
    return float((black - white).square().sum())


@pytest.mark.parametrize("low", [-1, 0])
@pytest.mark.parametrize("resize", ["legacy", "half-pixel"])
def test_logits_are_those_of_the_official_network(i3d, reference, low, resize):
    clip = torch.from_numpy(reference["video"]).permute(0, 1, 4, 2, 3)
    logits = i3d(prepared(clip, EvaluationProtocol(low=low, resize=resize), 224)).numpy()
    theirs = reference[f"{'pm1' if low else '01'}_{resize.replace('-', '')}"]
    assert np.abs(logits - theirs).max() <= 1e-4


def test_constant_videos_of_30_frames_have_the_value_of_tensorflow(i3d):
    assert fvd_of_constants(i3d, 30) == pytest.approx(151.392, abs=0.01)


@pytest.mark.slow
def test_the_curve_of_constant_videos_is_the_published_one(i3d, reference):
    for frames, theirs in zip(reference["constant_frames"], reference["constant_fvd_torchscript"], strict=True):
        assert fvd_of_constants(i3d, int(frames)) == pytest.approx(theirs, abs=1)


def test_a_black_clip_has_the_published_logits(i3d):
    logits = i3d(prepared(constant(15)[:1], EvaluationProtocol(), 224))[0]
    theirs = torch.tensor([0.7422105, 2.829727, 0.39993525, -0.38092658, 0.65539014, -1.4021297])
    torch.testing.assert_close(logits[[0, 1, 2, -3, -2, -1]], theirs, atol=1e-4, rtol=0)


def test_nine_frames_in_any_batch_and_order(i3d, rng):
    clips = torch.randint(256, (3, 9, 3, 16, 16), generator=rng, dtype=torch.uint8)
    run = lambda clips: i3d(prepared(clips, EvaluationProtocol(), 224))
    together = run(clips)
    scale = together.abs().max()
    assert (torch.cat([run(clip[None]) for clip in clips]) - together).abs().max() <= 1e-5 * scale
    assert (run(clips.flip(0)).flip(0) - together).abs().max() <= 1e-5 * scale


def test_eight_frames_are_an_error(i3d):
    with pytest.raises(EvaluationError, match="at least 9 frames, not 8"):
        i3d(prepared(constant(8), EvaluationProtocol(), 224))


def test_half_pixel_equals_torch(rng):
    clip = torch.rand(1, 2, 3, 5, 7, generator=rng)
    theirs = torch.nn.functional.interpolate(clip[0], (11, 11), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized(clip, 11, "half-pixel")[0], theirs)


def test_legacy_takes_the_pixel_at_the_scaled_position():
    row = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert resized(row, 4, "legacy")[0].tolist() == [0, 0.5, 1, 1]
    assert resized(row, 4, "half-pixel")[0].tolist() == [0, 0.25, 0.75, 1]


def test_ranges_and_quantisation(rng):
    values = torch.rand(1, 9, 3, 4, 4, generator=rng) * 2 - 1
    rounded = prepared(values, EvaluationProtocol(), 4)
    assert rounded.shape == (1, 3, 9, 4, 4)
    assert ((rounded + 1) * 127.5 - ((rounded + 1) * 127.5).round()).abs().max() < 1e-4
    paper = prepared(values, EvaluationProtocol(low=0, quantised=False), 4)
    torch.testing.assert_close(paper, ((values + 1) / 2).transpose(1, 2))


def test_grey_clips_are_repeated():
    assert prepared(torch.zeros(1, 9, 1, 4, 4, dtype=torch.uint8), EvaluationProtocol(), 4).shape == (1, 3, 9, 4, 4)
