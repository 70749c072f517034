"""What the kernel suite compares: our backends, plain PyTorch, and peers; each as one function of the inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from temporal_zoo.ops import ops, use_backend

from . import restated
from .problems import SUBJECTS, Inputs, Outputs, Size, draw

Role = Literal["ours", "plain", "installed", "source", "restated"]


@dataclass(frozen=True)
class Contender:
    """One way to compute a subject.

    Args:
        name: unique within a comparison.
        role: our backend, plain PyTorch, an installed package, a file of `--peers`, or a published algorithm restated.
        subject: what it computes; a yardstick may compute something else than those it is compared with.
        run: inputs -> output or outputs; None when it is not here.
        origin: version, digest of the source, or where the algorithm was published.
        swapped: its native layout has the second and third axis of inputs over frames, and of outputs, swapped.
        absent: why it is not here, and how to get it.
    """

    name: str
    role: Role
    subject: str
    run: Callable[[Inputs], Tensor | Outputs] | None
    origin: str = ""
    swapped: bool = False
    absent: str = ""


class Work:
    """A contender with inputs in its own layout: what is checked, timed and weighed."""

    def __init__(self, contender: Contender, size: Size) -> None:
        inputs, upstream = draw(contender.subject, size)
        self._contender = contender
        # Weights have no axis of frames, and the same layout everywhere.
        self._over_frames = [x.shape[:2] == upstream.shape[:2] for x in inputs.values()]
        leaves = (self._swap(x, over) for x, over in zip(inputs.values(), self._over_frames, strict=True))
        self._leaves = {name: x.requires_grad_() for name, x in zip(inputs, leaves, strict=True)}
        self._upstream = self._swap(upstream)

    def forward(self) -> Outputs:
        """The outputs, without a graph."""
        with torch.no_grad():
            return self._outputs()

    def train(self) -> tuple[Outputs, Outputs]:
        """Outputs, and gradients of all inputs."""
        outputs = self._outputs()
        return outputs, torch.autograd.grad(outputs, list(self._leaves.values()), [self._upstream] * len(outputs))

    def checked(self) -> tuple[Outputs, Outputs]:
        """Outputs and gradients in our layout."""
        outputs, gradients = self.train()
        back = (self._swap(x, over) for x, over in zip(gradients, self._over_frames, strict=True))
        return tuple(self._swap(y.detach()) for y in outputs), tuple(back)

    def _outputs(self) -> Outputs:
        assert self._contender.run is not None
        outputs = self._contender.run(self._leaves)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)

    def _swap(self, x: Tensor, over_frames: bool = True) -> Tensor:
        return x.transpose(1, 2).contiguous() if self._contender.swapped and over_frames else x


def ours(subject: str) -> dict[str, Contender]:
    """The backends of the op of a subject, by name."""
    backends = ops()[SUBJECTS[subject].op].backends
    return {
        backend: Contender(backend, "ours", subject, functools.partial(_pinned, subject, backend))
        for backend in backends
    }


def _pinned(subject: str, backend: str, inputs: Inputs) -> Outputs:
    with use_backend(**{SUBJECTS[subject].op: backend}):
        return SUBJECTS[subject].run(inputs)


def _sdpa(backends: Sequence[SDPBackend], inputs: Inputs) -> Tensor:
    with sdpa_kernel(list(backends)):
        return F.scaled_dot_product_attention(inputs["q"], inputs["k"], inputs["v"])


def _conv1d(inputs: Inputs) -> Outputs:
    x, past = inputs["x"], inputs["weight"].shape[1] - 1
    there = F.conv1d(F.pad(x, (past, 0)), inputs["weight"][:, None], inputs["bias"], groups=x.shape[1])
    # Looking ahead is a convolution with the taps the other way round: no flips of x.
    taps = inputs["weight_back"].flip(1)[:, None]
    back = F.conv1d(F.pad(x, (0, past)), taps, inputs["bias_back"], groups=x.shape[1])
    return F.silu(there), F.silu(back)


_FLASH = Contender(
    "SDPA flash, equal width",
    "plain",
    "attention",
    functools.partial(_sdpa, (SDPBackend.FLASH_ATTENTION,)),
    origin="torch",
    swapped=True,
)
PLAIN = {
    "selective_scan": (
        Contender(
            "ten-line loop",
            "plain",
            "selective_scan",
            lambda inputs: restated.both_ways(restated.scan_loop, inputs, frames=1),
            origin="ours",
        ),
        _FLASH,
    ),
    "causal_conv": (Contender("torch conv1d", "plain", "causal_conv", _conv1d, origin="torch", swapped=True),),
    "attention": (_FLASH,),
}
