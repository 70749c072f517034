"""Derivative transforms and tracers.  They follow plain torch operators only, so an op runs its reference under them.

The custom operators behind the other backends know their gradient, once, and nothing else: a forward-mode tangent would
be lost in them without an error.
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
    """The name of the transform or tracer that follows the operators which run now; None when there is none."""
    # Read where Dynamo sees it, so that what was compiled without dual numbers is compiled again with them.
    if forward_ad._current_level >= 0:
        return "forward mode (torch.func.jvp, dual numbers)"
    return _of_torch()


# Dynamo takes the answer as a constant.  It compiles again by itself when transforms of torch.func come or go.
@torch.compiler.assume_constant_result
def _of_torch() -> str | None:
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a torch.func transform (vmap, grad, ...)"
    # Not imported here: `torch.onnx` takes a second, and no export runs without it.
    if "torch.onnx" in sys.modules and sys.modules["torch.onnx"].is_in_onnx_export():
        return ONNX
    if torch.jit.is_tracing():
        return "torch.jit.trace"
    return None


def why_not(op_name: str) -> str | None:
    """Why no backend of the op but the reference can run now; None when they can."""
    name = active()
    return name and f"{name} can follow the reference only; pin it with use_backend({op_name}='reference')"


@torch.compiler.assume_constant_result
def tell(op_name: str) -> None:
    """Says once per op and transform that the reference runs because of it."""
    if (name := active()) is not None:
        _tell_once(op_name, name)


@functools.cache
def _tell_once(op_name: str, name: str) -> None:
    log.warning("%s runs its reference under %s: correct, and slower", op_name, name)
