"""Transforms of torch.func and tracers.  They support plain torch operators only, so ops run their reference in them.

The custom operators of the other backends have a first gradient only: they would drop a forward-mode tangent without an
error.
"""

from __future__ import annotations

import functools
import logging
import sys

import torch
from torch.autograd import forward_ad

log = logging.getLogger("temporal_zoo.ops")

ONNX = "torch.onnx.export"


def active() -> str | None:
    """The name of the active transform or tracer, or None."""
    # Dynamo sees this read, so that it recompiles a function when dual numbers come or go.
    if forward_ad._current_level >= 0:
        return "forward mode (torch.func.jvp, dual numbers)"
    return _of_torch()


# Dynamo treats the result as a constant; it recompiles by itself when transforms of torch.func come or go.
@torch.compiler.assume_constant_result
def _of_torch() -> str | None:
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a torch.func transform (vmap, grad, ...)"
    # `torch.onnx` is not imported here, because that takes a second; without the import no export is running.
    if "torch.onnx" in sys.modules and sys.modules["torch.onnx"].is_in_onnx_export():
        return ONNX
    if torch.jit.is_tracing():
        return "torch.jit.trace"
    return None


def why_not(op_name: str) -> str | None:
    """Why only the reference of the op can run now; None when all backends can."""
    name = active()
    return name and f"{name} supports the reference only; pin it with use_backend({op_name}='reference')"


@torch.compiler.assume_constant_result
def warn(op_name: str) -> None:
    """Logs once per op and transform that the reference runs because of it."""
    if (name := active()) is not None:
        _warn_once(op_name, name)


@functools.cache
def _warn_once(op_name: str, name: str) -> None:
    log.warning("%s runs its reference under %s: correct, and slower", op_name, name)
