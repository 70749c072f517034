"""How torch computes float32 products: TF32, which rounds their factors to ten bits, on or off."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


def exact_float32(task: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The task without TF32."""
    return _with(task, matmul=False, convolution=False)


def as_torch_does(task: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The task with torch's own defaults: TF32 in convolutions, and not in matrix products."""
    return _with(task, matmul=False, convolution=True)


def _with(task: Callable[..., dict[str, Any]], *, matmul: bool, convolution: bool) -> Callable[..., dict[str, Any]]:
    @functools.wraps(task)
    def run(*arguments: Any) -> dict[str, Any]:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = convolution
        return task(*arguments) | {"tf32": {"matmul": matmul, "convolution": convolution}}

    return run
