"""The diffusion process: the schedule of the paper's code, targets and their inverses, levels and noise of clips."""

import pytest
import torch

from diffusion.config import ProcessConfig
from diffusion.process.process import Process, draw_levels, draw_noise, loss, per_frame

# Index 0, 1, 127, 128, 254, 255 of the cosine schedule with T = 256, as the paper's code has it in float32.
PLACES = [0, 1, 127, 128, 254, 255]
GOLDEN = {
    "betas": [1.888267e-4, 2.629445e-4, 1.217769e-2, 1.232594e-2, 0.7499908, 0.9999],
    "alphas_bar": [0.9998112, 0.9995483, 0.4938436, 0.4877565, 3.705961e-5, 3.705961e-9],
    "posterior_variance": [0, 1.099149e-4, 1.203121e-2, 1.217947e-2, 0.7499074, 0.9998630],
    "posterior_clean": [1, 0.5820393, 0.01701121, 0.01690979, 9.131548e-3, 6.087052e-3],
    "posterior_noisy": [0, 0.4179607, 0.9819381, 0.9820082, 0.4999537, 9.999629e-3],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_schedule_with_256_levels(name):
    process = Process.from_config(ProcessConfig())
    assert process.num_levels == 256
    found = getattr(process, name)[PLACES]
    torch.testing.assert_close(found, torch.tensor(GOLDEN[name]), rtol=1e-6, atol=0)


def test_the_highest_level_is_almost_pure_noise():
    process = Process.from_config(ProcessConfig())
    assert (process.betas == process.betas.new_tensor(0.9999)).sum() == 1
    assert process.alphas_bar[-1].rsqrt().item() == pytest.approx(16426.67, rel=1e-6)


def test_schedule_with_1000_levels():
    process = Process.from_config(ProcessConfig(steps=1000))
    assert process.betas[0].item() == pytest.approx(4.128422e-5, rel=1e-6)
    assert process.alphas_bar[500].item() == pytest.approx(0.4922852, rel=1e-6)
    assert process.alphas_bar[-1].rsqrt().item() == pytest.approx(64166.3, rel=1e-6)


@pytest.mark.parametrize("steps", [2, 256, 1000, 100_000])
def test_both_scales_equal_those_in_float64(steps):
    process = Process.from_config(ProcessConfig(steps=steps))
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    signal = torch.cos((time + 0.008) / 1.008 * torch.pi / 2).square()
    ratios = (signal[1:] / signal[:-1]).clamp(min=1 - 0.9999)
    # 1 - ab as a sum, which loses nothing where ab is near 1: 1 - ab_t = sum_s beta_s ab_{s-1}.
    before = torch.cat([torch.ones(1, dtype=torch.float64), ratios.cumprod(0)[:-1]])
    variance = ((1 - ratios) * before).cumsum(0)
    torch.testing.assert_close(process.signal.double(), ratios.cumprod(0).sqrt(), rtol=1e-7, atol=0)
    torch.testing.assert_close(process.sigma.double(), variance.sqrt(), rtol=1e-7, atol=0)


def test_a_process_of_fewer_levels_has_their_scales():
    process = Process.from_config(ProcessConfig(steps=1000))
    visited = process.only([0, 1, 2, 500, 999])
    torch.testing.assert_close(visited.sigma, process.sigma[[0, 1, 2, 500, 999]], rtol=1e-6, atol=0)
    torch.testing.assert_close(visited.betas[1], process.betas[1], rtol=1e-6, atol=0)


@pytest.fixture
def clips(rng):
    """Clean clips and noise, (4, 3, 2, 2, 2)."""
    return torch.rand(4, 3, 2, 2, 2, generator=rng) * 2 - 1, torch.randn(4, 3, 2, 2, 2, generator=rng)


LEVELS = {
    "clip": torch.tensor([0, 3, 100, 200]),
    "frame": torch.tensor([[0, 1, 2], [3, 50, 220], [100, 99, 98], [7, 0, 200]]),
}


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_clean_clip_and_noise_follow_from_the_target(clips, prediction, levels):
    clean, noise = clips
    process = Process.from_config(ProcessConfig(prediction=prediction))
    noisy = process.add_noise(clean, noise, levels)
    found = process.to_clean(process.target(clean, noise, levels), noisy, levels)
    torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(process.to_noise(clean, noisy, levels), noise, rtol=1e-3, atol=1e-3)


def test_noise_levels_scale_each_frame(clips):
    clean, noise = clips
    process = Process.from_config(ProcessConfig())
    levels = LEVELS["frame"]
    noisy = process.add_noise(clean, noise, levels)
    for clip in range(4):
        for frame in range(3):
            share = process.alphas_bar[levels[clip, frame]]
            expected = share.sqrt() * clean[clip, frame] + (1 - share).sqrt() * noise[clip, frame]
            torch.testing.assert_close(noisy[clip, frame], expected)
    assert torch.equal(per_frame(levels, 3), levels)
    assert torch.equal(per_frame(levels[:, 0], 3), levels[:, :1].expand(-1, 3))


def test_the_loss_covers_real_frames_only(clips):
    clean, noise = clips
    process = Process.from_config(ProcessConfig(prediction="x0"))
    lengths = torch.tensor([3, 1, 2, 3])
    levels = LEVELS["clip"]
    wrong = torch.ones_like(clean)
    wrong[1, 1:] = wrong[2, 2:] = 1e6

    def network(noisy, seen, real):
        assert real is lengths
        assert seen is levels
        return clean + wrong

    torch.testing.assert_close(loss(network, process, clean, noise, levels, lengths), torch.ones(4))
    wrong = torch.ones_like(clean) * torch.tensor([1.0, 2, 3, 4])[:, None, None, None, None]
    plain = loss(lambda *_: clean + wrong, process, clean, noise, levels)
    torch.testing.assert_close(plain, torch.tensor([1.0, 4, 9, 16]))


@pytest.mark.parametrize("draw", ["uniform", "stratified"])
@pytest.mark.parametrize("levels", ["clip", "frame"])
def test_levels_are_a_function_of_the_clip_number(draw, levels):
    config = ProcessConfig(steps=100, draw=draw, levels=levels)
    whole = draw_levels(config, 5, range(12), 7)
    assert whole.shape == ((12,) if levels == "clip" else (12, 7))
    assert whole.dtype == torch.int64
    assert torch.equal(torch.cat([draw_levels(config, 5, range(5), 7), draw_levels(config, 5, range(5, 12), 7)]), whole)
    assert not torch.equal(draw_levels(config, 6, range(12), 7), whole)
    if levels == "frame":
        assert len(set(whole[0].tolist())) > 1


@pytest.mark.parametrize(("draw", "most"), [("uniform", 5), ("stratified", 3)])
def test_drawn_levels_cover_all_noise_levels(draw, most):
    counts = torch.zeros(8)
    for start in (0, 1000, 10**9):
        levels = draw_levels(ProcessConfig(steps=256, draw=draw), 1, range(start, start + 128), 1)
        counts += torch.bincount(levels // 32, minlength=8)
    expected = 3 * 128 / 8
    assert (counts - expected).abs().max() <= most * expected**0.5
    assert levels.min() >= 0
    assert levels.max() < 256


def test_stratified_levels_are_evenly_spread_in_each_small_batch():
    config = ProcessConfig(steps=1024, draw="stratified")
    for start in (0, 3, 777, 10**6):
        levels = draw_levels(config, 0, range(start, start + 16), 1).sort().values
        gaps = torch.diff(levels, append=levels[:1] + 1024)
        assert gaps.max() <= 1024 / 16 * 2  # independent draws leave gaps of about 1024 * H(16) / 16 = 216


def test_noise_is_a_function_of_the_clip_number_and_the_purpose():
    whole = draw_noise(3, "noise", range(6), (2, 3))
    assert torch.equal(draw_noise(3, "noise", range(4, 6), (2, 3)), whole[4:])
    assert not torch.equal(draw_noise(3, "test noise", range(6), (2, 3)), whole)
    assert len({tuple(clip.flatten().tolist()) for clip in whole}) == 6
