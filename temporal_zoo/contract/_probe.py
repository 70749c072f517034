"""What the checks of the contract are made of: mixers and clips to probe with, gradients, sweeps, and comparisons."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from temporal_zoo.interface import Mixer, StatefulMixer
from temporal_zoo.streaming import over_chunks

Make = Callable[[], Mixer]

Check = Callable[[Make], None]

SAME = 1e-4  # two ways to compute one thing in float32 may differ by this share of the largest value
FELT = 1e-5  # an input whose change moves no output by more than this share of the largest value has no effect


class ContractError(AssertionError):
    """A mixer breaks the contract; the message says how, and what that would do to an experiment."""


def awake(make: Make) -> Mixer:
    """A new mixer in evaluation mode in which nothing hides behind a gate, bias or table that starts at zero."""
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


def trained(
    mixer: Mixer, x: Tensor, weights: Tensor, lengths: Tensor | None, *, run: Callable[..., Tensor] | None = None
) -> dict[str, Tensor]:
    """One step of training on the loss sum(weights * y): y and its gradients by name, zero where one is missing.

    `run` computes y in place of the mixer, with its parameters.
    """
    x = x.detach().requires_grad_()
    wanted = {"gradient of the input": x}
    wanted |= {f"gradient of {name}": parameter for name, parameter in mixer.named_parameters()}
    y = mixer(x, lengths) if run is None else run(x, lengths)
    found = torch.autograd.grad((y * weights).sum(), list(wanted.values()), allow_unused=True)
    slopes = (torch.zeros_like(w) if f is None else f for w, f in zip(wanted.values(), found, strict=True))
    return {"output": y.detach(), **dict(zip(wanted, slopes, strict=True))}


def in_chunks(mixer: Mixer, x: Tensor, weights: Tensor, size: int = 3) -> dict[str, Tensor]:
    """`trained` over chunks of `size` frames, under names of its own; empty for mixers without chunks."""
    if not isinstance(mixer, StatefulMixer) or not mixer.passes:
        return {}
    run = lambda x, lengths: torch.cat(over_chunks(mixer, x.split(size, dim=1)), dim=1)
    return {f"{name} in chunks": tensor for name, tensor in trained(mixer, x, weights, None, run=run).items()}


def share(got: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the largest value; NaN where anything is."""
    if not wanted.numel():
        return 0.0
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))


def distance(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference relative to that of the wanted values."""
    return float((got.float() - wanted).norm() / wanted.norm().clamp(min=1e-6))


def require(holds: bool, otherwise: str) -> None:
    """Raises unless something holds."""
    if not holds:
        raise ContractError(otherwise)


def same(got: Tensor, wanted: Tensor, otherwise: str) -> None:
    """Raises unless two tensors agree to `SAME`."""
    difference = share(got.detach(), wanted.detach())
    # Written so that NaN fails.
    require(difference <= SAME, f"{otherwise} (off by {difference:.2g} of the largest value)")


def same_training(got: dict[str, Tensor], wanted: dict[str, Tensor], otherwise: str) -> None:
    """Raises unless two results of `trained` agree to `SAME`; `otherwise` has a place for what differs."""
    for name, tensor in wanted.items():
        same(got[name], tensor, otherwise.format(name))
