"""Compares the backends of a case with the reference, values and gradients, before the case is timed."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from temporal_zoo.ops import ops, tracing, use_backend
from temporal_zoo.ops.agreement import compare
from temporal_zoo.registry import build

from .case import DIM, Case
from .outcome import Agreement
from .training_step import SEED
from .workloads import precision

# A small input whose length is not a multiple of any block size.
_ROWS, _FRAMES = 3, 37
_REFERENCE = "reference"


class GateError(RuntimeError):
    """A backend disagrees with the reference; the message names the worst tensor."""


def check(case: Case) -> Agreement:
    """Compares the mixer of a case with the same mixer on reference backends, on a small input.

    Raises:
        GateError: the error is larger than the tolerance of the precision.
        BackendError: a pinned backend cannot run.
    """
    return _check(case.replace(level="mixer", mode="train", frames=_FRAMES, rows=_ROWS, total=None,
                               dim=case.dim or DIM, preset=None, clips=None, size=None))  # fmt: skip


@functools.cache
def _check(case: Case) -> Agreement:
    fast, backends = _run(case)
    if backends <= {f"{name}={_REFERENCE}" for name in ops()}:
        return Agreement()
    with use_backend(**dict.fromkeys(ops(), _REFERENCE)):
        reference, not_replaced = _run(case)
    unchecked = {backend for backend in not_replaced if not backend.endswith(f"={_REFERENCE}")}
    if unchecked == backends:
        return Agreement(unchecked=tuple(sorted(unchecked)))
    result = compare(fast, reference, getattr(torch, case.dtype))
    if not result.agrees:
        raise GateError(
            f"not timed: {', '.join(sorted(backends))} differs from the reference by {result.error:.2g} "
            f"(relative, largest in {result.worst}; {result.tolerance:g} is allowed)"
        )
    return Agreement(result.error, tuple(sorted(backends - unchecked)), tuple(sorted(unchecked)))


def _run(case: Case) -> tuple[dict[str, Tensor], set[str]]:
    """Output and gradients by name, and the backends that ran as "op=backend"."""
    device = torch.device(case.device)
    assert case.rows is not None
    assert case.dim is not None
    with torch.random.fork_rng(), tracing() as ran:
        torch.manual_seed(SEED)
        mixer = build(case.mixer, case.dim).to(device)
        x = torch.randn(case.rows, case.frames, case.dim, device=device).requires_grad_()
        upstream = torch.randn(case.rows, case.frames, case.dim, device=device)
        with precision(case):
            y = mixer(x)
        y.backward(upstream)
    found = {"output": y.detach(), "gradient of the input": x.grad}
    found |= {f"gradient of {name}": parameter.grad for name, parameter in mixer.named_parameters()}
    backends = {f"{op}={backend}" for op, names in ran.items() for backend in names}
    return {name: tensor.double() for name, tensor in found.items() if tensor is not None}, backends
