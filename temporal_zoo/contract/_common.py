"""What the checks share: mixers, clips, training steps, and comparisons with error messages."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from temporal_zoo.interface import Mixer, StatefulMixer
from temporal_zoo.streaming import over_chunks

Make = Callable[[], Mixer]

Check = Callable[[Make], None]

TOLERANCE = 1e-4  # largest relative difference of two float32 computations of the same function
MIN_EFFECT = 1e-5  # smallest relative change of an output that counts as an effect of an input


class ContractError(AssertionError):
    """A mixer breaks the contract; the message says how, and what this would mean for an experiment."""


def with_nonzero_weights(make: Make) -> Mixer:
    """A new mixer in evaluation mode, with noise on its parameters, because initial zeros would hide bugs."""
    mixer = make().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer


def ragged(mixer: Mixer) -> tuple[Tensor, Tensor]:
    """Clips of 5, 1 and 7 frames, padded with NaN to 7."""
    lengths = torch.tensor([5, 1, 7])
    x = torch.randn(3, 7, mixer.dim)
    for row, length in zip(x, lengths.tolist(), strict=True):
        row[length:] = torch.nan
    return x, lengths


def training_step(
    mixer: Mixer, x: Tensor, weights: Tensor, lengths: Tensor | None, *, run: Callable[..., Tensor] | None = None
) -> dict[str, Tensor]:
    """Forward and backward pass of the loss sum(weights * y).

    Args:
        run: a function that computes y instead of the mixer, with its parameters, such as a compiled mixer.

    Returns:
        "output" -> y, and "gradient of NAME" -> a gradient, zero if autograd has none.
    """
    x = x.detach().requires_grad_()
    inputs = {"gradient of the input": x}
    inputs |= {f"gradient of {name}": parameter for name, parameter in mixer.named_parameters()}
    y = mixer(x, lengths) if run is None else run(x, lengths)
    gradients = torch.autograd.grad((y * weights).sum(), list(inputs.values()), materialize_grads=True)
    return {"output": y.detach(), **dict(zip(inputs, gradients, strict=True))}


def in_chunks(mixer: Mixer, x: Tensor, weights: Tensor, size: int = 3) -> dict[str, Tensor]:
    """`training_step` over chunks of `size` frames, as "NAME in chunks"; empty for mixers without chunks."""
    if not isinstance(mixer, StatefulMixer) or not mixer.passes:
        return {}
    run = lambda x, lengths: torch.cat(over_chunks(mixer, x.split(size, dim=1)), dim=1)
    return {f"{name} in chunks": tensor for name, tensor in training_step(mixer, x, weights, None, run=run).items()}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """max |actual - expected| / max |expected|; NaN if a tensor has NaN, 0 for empty tensors."""
    if not expected.numel():
        return 0.0
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def rms_error(actual: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, relative to the root mean square of `expected`."""
    return float((actual.float() - expected).norm() / expected.norm().clamp(min=1e-6))


def require(condition: bool, message: str) -> None:
    """Raises ContractError with the message unless the condition is true."""
    if not condition:
        raise ContractError(message)


def require_same(actual: Tensor, expected: Tensor, message: str) -> None:
    """Raises ContractError unless two tensors agree to `TOLERANCE`."""
    error = relative_error(actual.detach(), expected.detach())
    # `not (error > TOLERANCE)` would accept NaN.
    require(error <= TOLERANCE, f"{message} (off by {error:.2g} of the largest value)")


def require_same_step(actual: dict[str, Tensor], expected: dict[str, Tensor], message: str) -> None:
    """Raises ContractError unless two results of `training_step` agree; `{}` in the message is the name of a tensor."""
    for name, tensor in expected.items():
        require_same(actual[name], tensor, message.format(name))
