"""Tests of the controls `conv` and `mean` only: their equations, padding and refusals."""

import pytest
import torch

from temporal_zoo import build
from temporal_zoo.config import ConfigError


@pytest.mark.parametrize("frames", [1, 2, 5, 12])
@pytest.mark.parametrize("width", [3, 7])
def test_conv_is_its_equation(width, frames):
    mixer = build("conv", 4, width=width).double()
    x, half = torch.randn(2, frames, 4, dtype=torch.float64), width // 2
    expected = mixer.conv1d.bias.expand_as(x).clone()
    for i in range(frames):
        for j in range(max(0, i - half), min(frames, i + half + 1)):
            expected[:, i] += mixer.conv1d.weight[:, 0, j - i + half] * x[:, j]
    torch.testing.assert_close(mixer(x), expected, rtol=1e-12, atol=1e-12)


def test_conv_with_symmetric_taps_commutes_with_time_reversal():
    mixer = build("conv", 4).double()
    with torch.no_grad():
        mixer.conv1d.weight.add_(mixer.conv1d.weight.flip(-1).clone())
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(mixer(x.flip(1)).flip(1), mixer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("width", "message"), [(4, "Config.width is 4; it must be odd.* use 5"), (1, "at least 3")])
def test_conv_refuses_other_widths(width, message):
    with pytest.raises(ConfigError, match=message):
        build("conv", 4, width=width)


def test_mean_is_the_average_over_real_frames():
    x, lengths = torch.randn(3, 7, 4, dtype=torch.float64), torch.tensor([7, 1, 4])
    y = build("mean", 4)(x, lengths)
    for row, real in enumerate(lengths.tolist()):
        torch.testing.assert_close(y[row, :real], x[row, :real].mean(0).expand(real, 4), rtol=1e-12, atol=1e-12)
        assert not y[row, real:].any()


def test_mean_sums_bfloat16_in_float32():
    x = torch.randn(2, 1000, 4).bfloat16() + 1
    y = build("mean", 4)(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), x.float().mean(1, keepdim=True).expand_as(x), rtol=4e-3, atol=0)


def test_controls_have_few_parameters():
    counts = {name: sum(p.numel() for p in build(name, 64).parameters()) for name in ("conv", "mean", "identity")}
    assert counts == {"conv": 64 * (7 + 1), "mean": 0, "identity": 0}
