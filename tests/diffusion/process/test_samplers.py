"""Samplers, tested with denoisers whose output is known."""

import itertools

import pytest
import torch

from diffusion.config import ProcessConfig
from diffusion.process.process import Process
from diffusion.process.samplers import ancestral, ddim, denoiser

SHAPE = (2, 3, 1, 4, 4)


def noise_from(rng):
    return lambda: torch.randn(SHAPE, generator=rng)


@pytest.fixture
def clean(rng):
    return torch.rand(SHAPE, generator=rng) * 2 - 1


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("num_steps", [1, 7, 20, None])
def test_a_network_that_predicts_one_clip_samples_it(rng, clean, prediction, num_steps):
    process = Process.from_config(ProcessConfig(steps=20, prediction=prediction))

    def network(noisy, levels):
        assert levels.shape == SHAPE[:1]
        return process.target(clean, process.to_noise(clean, noisy, levels), levels)

    fresh = noise_from(rng)
    denoise = denoiser(network, process)
    if num_steps is None:
        estimates = list(ancestral(denoise, process, fresh(), fresh))
    else:
        estimates = list(ddim(denoise, process, fresh(), num_steps=num_steps))
    assert len(estimates) == (num_steps or 20)
    torch.testing.assert_close(estimates[-1], clean, rtol=1e-2, atol=1e-2 if num_steps != 1 else 0.2)


def test_estimates_are_clamped_and_have_no_gradient():
    process = Process.from_config(ProcessConfig(steps=4, prediction="x0"))
    weight = torch.ones((), requires_grad=True)
    estimate = denoiser(lambda noisy, levels: weight * 3 * noisy.bfloat16(), process)(
        torch.ones(SHAPE), torch.zeros(2, dtype=torch.int64)
    )
    assert torch.equal(estimate, torch.ones(SHAPE))
    assert estimate.dtype == torch.float32
    assert not estimate.requires_grad


def test_ancestral_sampling_has_the_noise_levels_of_the_process(rng):
    """With the true clip as estimate, x_{t-1} is distributed as q(x_{t-1} | x_0) at every level."""
    process = Process.from_config(ProcessConfig(steps=16))
    shape = (64, 1, 1, 32, 32)
    clean = torch.full(shape, 0.6)
    seen = {}

    def denoise(noisy, levels):
        seen[levels[0].item()] = noisy
        return clean

    list(ancestral(denoise, process, torch.randn(shape, generator=rng), lambda: torch.randn(shape, generator=rng)))
    assert list(seen) == list(range(15, -1, -1))
    for level, noisy in seen.items():
        share = process.alphas_bar[level].item()
        assert noisy.mean().item() == pytest.approx(0.6 * share**0.5 if level < 15 else 0.0, abs=0.02)
        assert noisy.var().item() == pytest.approx(1 - share, rel=0.02)


def test_ancestral_sampling_adds_no_noise_in_the_last_step(rng):
    process = Process.from_config(ProcessConfig(steps=5))
    asked = []

    def fresh():
        asked.append(1)
        return torch.randn(SHAPE, generator=rng)

    list(ancestral(lambda noisy, levels: noisy.clamp(-1, 1), process, torch.zeros(SHAPE), fresh))
    assert len(asked) == 4


def test_ddim_is_deterministic_and_visits_levels_from_the_highest_to_the_lowest(rng):
    process = Process.from_config(ProcessConfig(steps=50))
    start = torch.randn(SHAPE, generator=rng)
    levels = []

    def denoise(noisy, now):
        levels.append(now[0].item())
        return (noisy * 0.9).clamp(-1, 1)

    first, second = (list(ddim(denoise, process, start, num_steps=8))[-1] for _ in range(2))
    assert torch.equal(first, second)
    assert levels == [49, 42, 35, 28, 21, 14, 7, 0] * 2


def test_samplers_compute_only_the_steps_that_the_caller_asks_for(rng):
    process = Process.from_config(ProcessConfig(steps=1000))
    calls = []

    def denoise(noisy, levels):
        calls.append(levels)
        return noisy.clamp(-1, 1)

    fresh = noise_from(rng)
    for sampler in (ddim(denoise, process, fresh(), num_steps=900), ancestral(denoise, process, fresh(), fresh)):
        calls.clear()
        assert len(list(itertools.islice(sampler, 3))) == 3
        assert len(calls) == 3


@pytest.mark.parametrize("num_steps", [0, 51])
def test_more_steps_than_levels_are_refused(num_steps):
    process = Process.from_config(ProcessConfig(steps=50))
    refusal = f"{num_steps} sampling steps are not possible; choose 1 to 50"
    with pytest.raises(ValueError, match=refusal):
        next(ddim(lambda noisy, levels: noisy, process, torch.zeros(SHAPE), num_steps=num_steps))
    with pytest.raises(ValueError, match=refusal):
        next(ancestral(lambda noisy, levels: noisy, process, torch.zeros(SHAPE), lambda: None, num_steps=num_steps))


def test_ancestral_sampling_on_few_levels_has_their_noise(rng):
    """As on all levels: with the true clip as estimate, every visited x is distributed as q(x | x_0)."""
    process = Process.from_config(ProcessConfig(steps=256))
    shape = (64, 1, 1, 32, 32)
    clean = torch.full(shape, 0.6)
    seen = {}

    def denoise(noisy, levels):
        seen[levels[0].item()] = noisy
        return clean

    def fresh():
        return torch.randn(shape, generator=rng)

    list(ancestral(denoise, process, fresh(), fresh, num_steps=6))
    assert list(seen) == [255, 204, 153, 102, 51, 0]
    for level, noisy in seen.items():
        share = process.alphas_bar[level].item()
        assert noisy.mean().item() == pytest.approx(0.6 * share**0.5, abs=0.02)
        assert noisy.var().item() == pytest.approx(1 - share, rel=0.02)


def test_restricted_to_all_levels_a_process_is_itself():
    process = Process.from_config(ProcessConfig(steps=16))
    assert process.only(range(16)) is process
