"""The nearest training clip of a sample."""

import torch

from diffusion.clip import Clip
from diffusion.data import open_clips
from diffusion.data.config import DataConfig
from diffusion.sampling.neighbours import nearest


def test_a_training_clip_is_its_own_neighbour():
    source = open_clips(DataConfig(frames=3, size=8, videos=2), split="train")
    clip = source.draw(5, seed=0)
    (found,) = nearest([clip], source)
    assert torch.equal(found.clip.pixels, clip.pixels)
    assert found.distance == 0


def test_mirrored_clips_count_only_if_training_mirrored_them():
    for flip, expected in ((True, 0), (False, None)):
        source = open_clips(DataConfig(frames=3, size=8, videos=2, flip=flip), split="train")
        clip = source.fixed(3)[1]
        (found,) = nearest([Clip(clip.pixels.flip(-1), clip.fps)], source)
        assert (found.distance == 0) == (expected == 0)


def test_distance_is_in_grey_levels():
    source = open_clips(DataConfig(frames=2, size=8, videos=1), split="train")
    clip = source.fixed(1)[0]
    brighter = Clip((clip.pixels.int() + 3).clamp(max=255).to(torch.uint8), clip.fps)
    (found,) = nearest([brighter], source)
    assert 0 < found.distance <= 3
