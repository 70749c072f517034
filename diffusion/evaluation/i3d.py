"""I3D: the video classifier whose logits FVD compares (arXiv 1705.07750; FVD: arXiv 1812.01717).

Inception-v1 with its convolutions inflated over time, RGB, trained on Kinetics-400 from random weights (DeepMind's
`rgb_scratch`).  Convolutions and max-pools have TensorFlow's SAME padding.  Batch norms are folded into the
convolutions before them, in float64.  Letters: b clips, t frames, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffusion.evaluation import EvaluationError

FEATURES = 400
SIZE = 224
# Time is halved three times, and the last average pool needs two time steps: 8 frames leave one, 9 leave two.
LEAST_FRAMES = 9
PREFIX = "RGB/inception_i3d/"
EPSILON = 1e-3  # of the batch norms; the logits of ports with torch's default of 1e-5 differ by 0.2 %

STEM = (("Conv3d_1a_7x7", 7, 3, 64), ("Conv3d_2b_1x1", 1, 64, 64), ("Conv3d_2c_3x3", 3, 64, 192))
# Block -> input channels; output channels of branch 0, of both convolutions of branches 1 and 2, and of branch 3.
BLOCKS = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
# Max-pools before a block: kernel (t, h, w).  The stride equals the kernel, except that it is 2 where the kernel is 3.
POOLS = {"Mixed_3b": (1, 3, 3), "Mixed_4b": (3, 3, 3), "Mixed_5b": (2, 2, 2)}
LOGITS = ("Logits/Conv3d_0c_1x1", 1, 1024, FEATURES)


def block_units(block: str) -> list[tuple[str, int, int, int]]:
    """The convolutions of an inception block: name, kernel size, input channels, output channels."""
    into, zero, one_a, one_b, two_a, two_b, three = BLOCKS[block]
    last = "Conv3d_0a_3x3" if block == "Mixed_5b" else "Conv3d_0b_3x3"  # an inconsistency in the published names
    units = [
        ("Branch_0/Conv3d_0a_1x1", 1, into, zero),
        ("Branch_1/Conv3d_0a_1x1", 1, into, one_a),
        ("Branch_1/Conv3d_0b_3x3", 3, one_a, one_b),
        ("Branch_2/Conv3d_0a_1x1", 1, into, two_a),
        (f"Branch_2/{last}", 3, two_a, two_b),
        ("Branch_3/Conv3d_0b_1x1", 1, into, three),
    ]
    return [(f"{block}/{name}", kernel, into, out) for name, kernel, into, out in units]


def units() -> list[tuple[str, int, int, int]]:
    """All convolutions with a batch norm, in the order of the network; `LOGITS` comes after them."""
    return [*STEM, *(unit for block in BLOCKS for unit in block_units(block))]


class I3D(nn.Module):
    """The network, for inference only.

    Args:
        weights: arrays under their TensorFlow names; see `diffusion.evaluation.weights`.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.stem = nn.ModuleList(_unit(weights, name, stride=2 if name == STEM[0][0] else 1) for name, *_ in STEM)
        self.blocks = nn.ModuleDict({block: _Inception(weights, block) for block in BLOCKS})
        kernel, bias = (weights[f"{PREFIX}{LOGITS[0]}/conv_3d/{leaf}"] for leaf in "wb")
        self.head = nn.Linear(*kernel.shape[3:])
        self.head.weight = _constant(torch.tensor(kernel).reshape(kernel.shape[3:]).T)
        self.head.bias = _constant(torch.tensor(bias))
        self.eval()

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """Computes the logits, averaged over time.

        Args:
            pixels: (b, 3, t, 224, 224) float32; the network was trained on [-1, 1].

        Returns:
            (b, 400).

        Raises:
            EvaluationError: there are fewer than `LEAST_FRAMES` frames.
        """
        if pixels.shape[2] < LEAST_FRAMES:
            raise EvaluationError(f"I3D needs clips of at least {LEAST_FRAMES} frames, not {pixels.shape[2]}")
        first, second, third = self.stem
        x = first(pixels.contiguous(memory_format=torch.channels_last_3d))
        x = third(second(_pooled(x, (1, 3, 3), (1, 2, 2))))
        for name, block in self.blocks.items():
            if name in POOLS:
                x = _pooled(x, POOLS[name], tuple(min(edge, 2) for edge in POOLS[name]))
            x = block(x)
        # An average pool of two time steps, a 1x1x1 convolution and a mean over time: a weighted mean and a product.
        steps = x.mean((3, 4))  # b c t
        pairs = (steps[:, :, 1:] + steps[:, :, :-1]) / 2
        return self.head(pairs.mean(2))


class _Unit(nn.Module):
    """Convolution with SAME padding and a bias, then ReLU."""

    def __init__(self, kernel: Tensor, bias: Tensor, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.kernel = _constant(kernel.contiguous(memory_format=torch.channels_last_3d))
        self.bias = _constant(bias)

    def forward(self, x: Tensor) -> Tensor:
        edges = zip(x.shape[2:], self.kernel.shape[2:], strict=True)
        before, after = zip(*(_same(length, kernel, self.stride) for length, kernel in edges), strict=True)
        if before != after:
            x = functional.pad(x, [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair])
            before = (0, 0, 0)
        return functional.conv3d(x, self.kernel, self.bias, self.stride, before).relu_()


class _Inception(nn.Module):
    """Four parallel branches: 1x1x1; two of 1x1x1 and 3x3x3; max-pool and 1x1x1."""

    def __init__(self, weights: Mapping[str, np.ndarray], block: str) -> None:
        super().__init__()
        self.units = nn.ModuleList(_unit(weights, name) for name, *_ in block_units(block))

    def forward(self, x: Tensor) -> Tensor:
        zero, one_a, one_b, two_a, two_b, three = self.units
        pooled = _pooled(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([zero(x), one_b(one_a(x)), two_b(two_a(x)), three(pooled)], 1)


def _unit(weights: Mapping[str, np.ndarray], name: str, stride: int = 1) -> _Unit:
    """A convolution with its batch norm folded in: w / sqrt(var + eps), beta - mean / sqrt(var + eps)."""
    kernel, mean, variance, beta = (
        torch.tensor(weights[f"{PREFIX}{name}/{leaf}"], dtype=torch.float64)
        for leaf in ("conv_3d/w", "batch_norm/moving_mean", "batch_norm/moving_variance", "batch_norm/beta")
    )
    scale = (variance + EPSILON).rsqrt()
    return _Unit((kernel * scale).permute(4, 3, 0, 1, 2).float(), (beta - mean * scale).float(), stride)


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def _same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis: the least for ceil(length / stride) steps; an odd one is at the end."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def _pooled(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Max-pool with SAME padding; `ceil_mode` adds the odd one at the end without a copy."""
    before = [_same(n, k, s)[0] for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    return functional.max_pool3d(x, kernel, stride, before, ceil_mode=True)
